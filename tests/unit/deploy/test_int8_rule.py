"""What int8 quantises of others' networks: read off the graph, run on ONNX Runtime, and in plans of TensorRT-RTX."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fixtures.rtx import kernel_inputs
from numpy.typing import NDArray
from torch import Tensor, nn

from floats_edge.artifacts.manifest import Mode
from floats_edge.deploy import onnx_graph
from floats_edge.deploy.engine_request import BuildRequest, EngineOptions
from floats_edge.deploy.int8_rule import NARROW, POOLED
from floats_edge.deploy.lambda_graph import Network
from floats_edge.deploy.quantize import MIN_IMAGES, calibrate
from floats_edge.deploy.tensorrt_engine import build_engine
from floats_edge.method.condition import condition, conditioned_layers, fold, folded
from floats_edge.method.conditioning import conditioned_weights
from floats_edge.runtime.lambda_weights import InputWeights, LambdaWeights

SHAPE = (3, 16, 16)
IMAGES = torch.rand(MIN_IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0)).numpy()


def unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Mixed(nn.Module):
    """An identity shortcut, a projected one, an inverted block with a gate, and a concatenation before a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = unit(3, 16), nn.Hardswish()
        self.plain1, self.plain2 = unit(16, 16), unit(16, 16)
        self.down1, self.down2, self.projection = unit(16, 32, stride=2), unit(32, 32), unit(16, 32, 1, 2)
        self.expand, self.depthwise, self.shrink = unit(32, 48, 1), unit(48, 48, groups=48), unit(48, 32, 1)
        self.squeeze, self.excite = nn.Conv2d(48, 12, 1), nn.Conv2d(12, 48, 1)
        self.left, self.right, self.last = unit(32, 16, 1), unit(32, 16), unit(32, 40, 1)
        self.head = nn.Linear(40, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.stem(images))
        x = (self.plain2(self.plain1(x).relu()) + x).relu()
        x = (self.down2(self.down1(x).relu()) + self.projection(x)).relu()
        inside = self.act(self.depthwise(self.act(self.expand(x))))
        gate = self.excite(self.squeeze(nn.functional.adaptive_avg_pool2d(inside, 1)).relu())
        x = self.shrink(inside * nn.functional.hardsigmoid(gate)) + x
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        x = self.act(self.last(nn.functional.max_pool2d(x, 2)))
        return self.head(x.mean((2, 3)))


def network_of(module: nn.Module) -> Network:
    """The network, conditioned, with both ends apart."""
    generator = torch.Generator().manual_seed(0)
    condition(module.eval(), torch.from_numpy(IMAGES[:2]))
    for weight in conditioned_weights(module).values():
        weight.alpha.data.uniform_(-0.2, 0.2, generator=generator)
    layers = {name: layer.numpy() for name, layer in fold(conditioned_layers(module), "interpolate").items()}
    return Network(onnx_graph.trace(folded(module, 0.0), SHAPE), layers)


@pytest.fixture(scope="module")
def mixed() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network_of(Mixed())


@pytest.fixture(scope="module")
def ranges(mixed: Network) -> dict[str, float]:
    return calibrate(mixed.constant, mixed.int8.tensors, {lam: [IMAGES] for lam in (0.0, 0.5, 1.0)}, "minmax")


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def writer(model: onnx.ModelProto, tensor: str) -> str:
    """What made a tensor: the layer of a convolution, the kind of another operation."""
    node = makers(model).get(tensor)
    if node is None:
        return tensor
    return node.input[1].partition(".")[0] if node.op_type == "Conv" else node.op_type


# The rule


def test_depthwise_convolutions_and_gates_stay_in_float_with_a_reason(mixed: Network) -> None:
    assert mixed.int8.kept == {"depthwise.0": NARROW, "squeeze": POOLED, "excite": POOLED}
    assert set(mixed.quantisable) == set(mixed.layers) - set(mixed.int8.kept) - {"head"}


@pytest.mark.parametrize(("groups", "kept"), [(1, False), (8, False), (16, True), (32, True)])
def test_groups_of_less_than_four_channels_stay_in_float(groups: int, kept: bool) -> None:
    module = nn.Sequential(unit(3, 32), nn.ReLU(), unit(32, 32, groups=groups), nn.Flatten(), nn.Linear(8192, 5))
    assert network_of(module).int8.kept == ({"2.0": NARROW} if kept else {})


def test_what_an_addition_is_quantised_with(mixed: Network) -> None:
    """The input that is no result of the convolution that takes it along; of two convolutions the later one does."""
    found = {shortcut.layer: writer(mixed.template, shortcut.tensor) for shortcut in mixed.int8.shortcuts}
    assert found == {"plain2.0": "HardSwish", "projection.0": "down2", "shrink.0": "Relu"}


class ReadInFloat(nn.Module):
    """A shortcut that a depthwise convolution reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise, self.point = unit(3, 16), unit(16, 16, groups=16), unit(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).relu()
        return self.head((self.point(self.depthwise(x).relu()) + x).relu().mean((2, 3)))


class AddsNumbers(nn.Module):
    """Additions that are no shortcuts: a constant, the mean of channels, and twice the same."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.second, self.third = unit(3, 16), unit(16, 16), unit(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = (self.stem(images) + 0.5).relu()
        x = self.second(x) + x.mean((2, 3), keepdim=True)
        x = self.third(x)
        return self.head((x + x).relu().mean((2, 3)))


@pytest.mark.parametrize("module", [ReadInFloat, AddsNumbers])
def test_additions_that_stay_in_float(module: Callable[[], nn.Module]) -> None:
    assert network_of(module()).int8.shortcuts == ()


def test_a_convolution_whose_weight_is_computed_is_left_as_it_is() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)

    network = network_of(
        nn.Sequential(unit(3, 16), nn.ReLU(), Standardised(16, 16, 3), nn.Flatten(), nn.Linear(3136, 5))
    )
    assert network.quantisable == ("0.0",)
    assert network.graph("fixed", 0.0, "int8", dict.fromkeys(network.int8.tensors, 1.0)).graph.node


# Graphs


def logits_at(network: Network, model: onnx.ModelProto, mode: Mode, lam: float) -> NDArray[np.float32]:
    feeds: dict[str, NDArray[np.generic]] = {"images": IMAGES[:100]}
    if mode == "bound":
        feeds |= dict(InputWeights(LambdaWeights(network.layers), "int8", network.scales(None)).at(lam))
    elif mode == "input":
        feeds["lambda"] = np.array(lam, np.float32)
    session = onnxruntime.InferenceSession(onnx_graph.finished(model, {}), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input"])
def test_it_computes_the_network_in_every_mode(mixed: Network, ranges: Mapping[str, float], mode: Mode) -> None:
    for lam in (0.0, 0.5, 1.0):
        model = mixed.graph(mode, lam if mode in ("fixed", "bank") else None, "int8", ranges)
        wanted = logits_at(mixed, mixed.constant(lam), "fixed", lam)
        error = np.abs(logits_at(mixed, model, mode, lam) - wanted).max() / np.ptp(wanted)
        assert 0 < error < 0.05


@pytest.mark.parametrize("mode", ["fixed", "bound", "input"])
def test_a_tensor_is_quantised_once_for_all_that_read_it(
    mixed: Network, ranges: Mapping[str, float], mode: Mode
) -> None:
    model = mixed.graph(mode, 0.3 if mode == "fixed" else None, "int8", ranges)
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    activations = [node.input[0] for node in quantisers if node.input[0] in ranges]
    assert Counter(activations) == Counter(mixed.int8.tensors)
    readers = Counter(name for node in model.graph.node for name in node.input)
    for shortcut in mixed.int8.shortcuts:
        (addition,) = (node for node in model.graph.node if node.output[0] == shortcut.result)
        assert f"{shortcut.tensor}.dequantized" in addition.input
        assert shortcut.tensor not in addition.input
    identity, projected, _ = mixed.int8.shortcuts
    assert readers[f"{identity.tensor}.dequantized"] == 2, "the convolution and the addition"
    assert readers[identity.tensor] == readers[projected.tensor] == 1, "nothing but the quantiser"


def test_nothing_stands_between_a_convolution_and_its_activation_or_addition(
    mixed: Network, ranges: Mapping[str, float]
) -> None:
    model = mixed.graph("fixed", 0.3, "int8", ranges)
    written = {writer(model, node.input[0]) for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert written == {"images", "HardSwish", "Relu", "Add", "Mul", "MaxPool", "down2"}


def test_an_addition_is_in_float_where_its_convolution_is_kept(mixed: Network, ranges: Mapping[str, float]) -> None:
    model = mixed.quantised(mixed.constant(0.3), ranges, mixed.scales(0.3, kept=("plain2.0",)))
    identity = mixed.int8.shortcuts[0]
    (addition,) = (node for node in model.graph.node if node.output[0] == identity.result)
    assert identity.tensor in addition.input


# TensorRT-RTX


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real TensorRT-RTX, in the child process too, even where the full TensorRT is installed."""
    (tmp_path / "tensorrt.py").write_text("raise ImportError('hidden by the test')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")


@pytest.mark.parametrize("mode", ["fixed", "bound", "input"])
def test_what_tensorrt_rtx_reads_in_int8(
    rtx: None, mixed: Network, ranges: Mapping[str, float], mode: Mode, tmp_path: Path
) -> None:
    """Convolutions read int8 but for those that are kept; an addition reads its identity shortcut in int8.

    The result of a convolution is in float there, whatever comes after it.
    """
    model = mixed.graph(mode, 0.3 if mode == "fixed" else None, "int8", ranges)
    (tmp_path / "model.onnx").write_bytes(onnx_graph.finished(model, {}))
    plan = tmp_path / "model.plan"
    build_engine(BuildRequest(tmp_path / "model.onnx", plan, EngineOptions(targets=("sm_86",))))
    read = kernel_inputs(plan.read_bytes())
    for node in mixed.template.graph.node:
        layer = node.input[1].removesuffix(".weight") if node.op_type == "Conv" else None
        if layer in mixed.int8.quantised:
            assert "int8" in read[node.name], layer
        elif layer is not None:
            assert "int8" not in read.get(node.name, {"float"}), layer
    identities = [shortcut for shortcut in mixed.int8.shortcuts if writer(mixed.template, shortcut.tensor) != "down2"]
    assert [read[makers(model)[shortcut.result].name] for shortcut in identities] == [{"int8", "float"}] * 2
