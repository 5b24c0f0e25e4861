"""The twin of whole bundles: the trained network, differentiable, from nothing but the bundle's own graph."""

import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fixtures.strangers import stranger
from fixtures.tiny_bundle import CLASSES, MODES_AND_PRECISIONS, affine_layers, images, write_bundle
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn.functional import conv2d, linear

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.manifest import Mode, Precision
from floats_edge.data import Splits
from floats_edge.deploy import onnx_graph
from floats_edge.errors import ArtifactError, LambdaError
from floats_edge.evaluation.parity import GATES
from floats_edge.method.fold import weights_at
from floats_edge.networks.spec import NetworkSpec
from floats_edge.runtime import twin_graph
from floats_edge.runtime.graph_rules import Node, read_parts
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.torch import run_predictor
from floats_edge.runtime.twin import BundleTwin
from floats_edge.runtime.twin_graph import GraphNetwork
from floats_edge.runtime.twin_operators import OPERATORS
from floats_edge.runtime.twin_tensors import Run

LAMBDAS = (0.0, 0.3, 1.0, 0.0, 0.7)
VALUES = {"fixed": (0.3,), "bank": (0.0, 0.3, 1.0)}
ROUNDING = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 1e-2, "int8": 1e-2}
"""Of constants, which are in the graph as they are deployed."""
EXACT = ("bound", "refit")
"""Modes whose weights are stored in float32 at every precision."""


def make(folder: Path, mode: str, precision: Precision = "fp32") -> Bundle:
    return write_bundle(folder, VALUES.get(mode), precision, mode)  # type: ignore[arg-type]


def by_hand(pixels: Tensor, lam: float) -> Tensor:
    """The network of the tiny bundles."""
    weights = {name: torch.from_numpy(array) for name, array in weights_at(affine_layers(), lam).items()}
    features = conv2d(pixels, weights["stem.weight"], weights["stem.bias"], padding=1).relu().mean((2, 3))
    return linear(features, weights["classifier.weight"], weights["classifier.bias"])


def logits_and_gradient(network: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
    pixels = torch.from_numpy(images(16)).requires_grad_()
    logits = network(pixels)
    torch.nn.functional.cross_entropy(logits, torch.arange(16) % CLASSES).backward()
    assert pixels.grad is not None
    return logits.detach().numpy(), pixels.grad.numpy()


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_logits_and_gradients_are_those_of_the_float_network(tmp_path: Path, mode: Mode, precision: Precision) -> None:
    twin = BundleTwin(make(tmp_path / "bundle", mode, precision))
    tolerance = 1e-6 if mode in EXACT or (mode, precision) == ("input", "int8") else ROUNDING[precision]
    for lam in VALUES.get(mode, LAMBDAS):
        twin.set_lambda(lam)
        logits, gradient = logits_and_gradient(twin.network)
        wanted, slope = logits_and_gradient(lambda pixels, lam=lam: by_hand(pixels, lam))
        assert np.abs(logits - wanted).max() <= tolerance * np.ptp(wanted)
        # where rounding turns a ReLU off, the gradient of a few pixels is another
        assert np.linalg.norm(gradient - slope) <= (0.02 if tolerance == 1e-6 else 0.2) * np.linalg.norm(slope)
        assert logits.dtype == gradient.dtype == np.float32
        assert np.array_equal(twin.predict(images(16)), logits)


@pytest.mark.parametrize("mode", ["fixed", "bank", "input"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_constants_are_those_that_are_deployed(tmp_path: Path, mode: str, precision: Precision) -> None:
    """What int8 quantises apart, which a twin does not do to activations."""
    bundle = make(tmp_path / "bundle", mode, precision)
    lam = VALUES.get(mode, (0.0,))[0]
    with open_ort(bundle, "ort-cpu", lam) as engine:
        wanted = engine.predict(images(64))
    error = np.abs(BundleTwin(bundle).predict(images(64)) - wanted).max() / np.ptp(wanted)
    assert error < (1e-6 if precision == "fp16" else GATES["int8"][1])


@pytest.mark.parametrize(
    ("mode", "precision", "lambdas", "tolerance"),
    [
        ("bound", "fp32", (0.0, 0.6, 1.0), 1e-6),
        ("bound", "fp16", (0.0, 0.6), 1e-3),
        ("fixed", "fp32", (0.3,), 1e-6),
        ("bank", "fp32", (1.0, 0.0), 1e-6),
        ("fixed", "fp16", (0.3,), 1e-2),
        ("fixed", "bf16", (0.3,), 1e-1),
    ],
)
def test_twin_of_a_bundle_is_the_trained_network(
    bundles: Callable[..., Bundle],
    digits_run: TrainingRun,
    digits: Splits,
    mode: str,
    precision: str,
    lambdas: tuple[float, ...],
    tolerance: float,
) -> None:
    pixels = digits.test.as_float(slice(64))
    twin, network = BundleTwin(bundles(mode, precision)), run_predictor(digits_run)
    for lam in lambdas:
        assert (twin.set_lambda(lam), network.set_lambda(lam)) == (lam, lam)
        wanted = network.predict(pixels)
        assert np.abs(twin.predict(pixels) - wanted).max() / np.ptp(wanted) < tolerance


def test_a_network_of_ones_own() -> None:
    """Groups, reflecting pads, branches and a gate, traced as an export traces it."""
    network = stranger().eval().requires_grad_(False)
    parts = read_parts(onnx_graph.finished(onnx_graph.trace(network, (3, 32, 32)), {}))
    twin = GraphNetwork(parts, onnx_graph.INPUT, (), torch.device("cpu"))
    twin.give({})
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = network(pixels)
    assert (twin(pixels) - wanted).abs().max() <= 1e-6 * np.ptp(wanted.numpy())


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_results_stay_where_they_are_made(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device has two names: ``cuda`` and ``cuda:0``, or without a GPU ``cpu`` and ``cpu:0``."""
    twin = BundleTwin(make(tmp_path / "bundle", "bound"), device)
    placed: list[tuple[int, ...]] = []

    def noted(tensor: Tensor, device: torch.device) -> Tensor:
        placed.append(tuple(tensor.shape))
        return tensor.to(device)

    monkeypatch.setattr(twin_graph, "_placed", noted)
    pixels = torch.from_numpy(images(2))
    twin.network(pixels)
    assert placed == [pixels.shape]


def test_twin_serves_the_lambdas_of_its_bundle(tmp_path: Path) -> None:
    assert BundleTwin(make(tmp_path / "bound", "bound")).lambdas is None
    assert BundleTwin(make(tmp_path / "bank", "bank")).lambdas == (0.0, 0.3, 1.0)
    twin = BundleTwin(make(tmp_path / "fixed", "fixed"))
    assert twin.lam == 0.3
    with pytest.raises(LambdaError):
        twin.set_lambda(0.0)


def test_memory_is_free_again_while_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients no tensor outlives the operation that reads it last."""
    made: list[weakref.ref[Tensor]] = []
    gemm = OPERATORS["Gemm"]

    def relu(x: Tensor) -> Tensor:
        y = torch.relu(x)
        made.append(weakref.ref(y))
        return y

    def alone(node: Node) -> Run:
        def run(*tensors: Tensor) -> Any:
            assert [result() for result in made] == [None] * len(made)
            return gemm(node)(*tensors)

        return run

    monkeypatch.setitem(twin_graph.OPERATORS, "Relu", lambda _: relu)
    monkeypatch.setitem(twin_graph.OPERATORS, "Gemm", alone)
    BundleTwin(make(tmp_path / "bundle", "fixed")).predict(images(2))
    assert len(made) == 2


# What is no graph of the manifest, or not to be followed

Change = Callable[[onnx.GraphProto], None]


def changed(bundle: Bundle, change: Change) -> Bundle:
    """The bundle with its last graph changed by hand, under a manifest that lists the new hash."""
    file = bundle.path / bundle.manifest.graphs[-1].file
    model = onnx.load_model_from_string(file.read_bytes())
    change(model.graph)
    file.write_bytes(model.SerializeToString())
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    return open_bundle(bundle.path)


def through(operation: str, *others: np.ndarray, **attributes: Any) -> Change:
    """The features go through another operation."""

    def change(graph: onnx.GraphProto) -> None:
        names = [f"other{at}" for at in range(len(others))]
        graph.initializer.extend(map(numpy_helper.from_array, others, names))
        flatten = next(node for node in graph.node if node.op_type == "Flatten")
        (features,) = flatten.output
        flatten.output[0] = "flat"
        node = helper.make_node(operation, ["flat", *names], [features], **attributes)
        graph.node.insert(list(graph.node).index(flatten) + 1, node)

    return change


def twice_as_many(graph: onnx.GraphProto) -> None:
    """Logits, whatever is stated."""
    graph.node[-1].output[0] = "half"
    graph.node.append(helper.make_node("Concat", ["half", "half"], ["logits"], axis=1))


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input", "refit"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice_as_many, r"the graph .*\.onnx gives logits of shape \[2, 10\] for 2 images"),
        (through("LpNormalization", p=5), r"the graph .*\.onnx has an LpNormalization of order 5"),
        (through("Cast", to=11), r"the graph .*\.onnx has a Cast to type 11"),
        (through("Gather", np.full(8, 99), axis=1), r"PyTorch cannot compute the graph .*\.onnx: "),
        (through("Tile", np.array([1, 2])), r"the graph .*\.onnx has a Gemm of shapes that do not fit"),
        (through("Loop"), r"the graph .*\.onnx has an operation Loop, which no export writes"),
    ],
    ids=["logits", "attribute", "type", "fails", "shapes", "unknown"],
)
def test_a_graph_that_no_twin_follows_is_refused_when_it_is_opened(
    tmp_path: Path, mode: str, change: Change, message: str
) -> None:
    bundle = changed(make(tmp_path / "bundle", mode), change)
    with pytest.raises(ArtifactError, match=message) as caught:
        BundleTwin(bundle)
    assert "export it again" in caught.value.fix
    assert "\n" not in caught.value.what


def test_weights_that_are_quantised_in_the_graph_go_nowhere_else(tmp_path: Path) -> None:
    """The twin has them in float32, where the graph says int8."""

    def cast(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] == "stem.weight":
                node.CopyFrom(helper.make_node("Cast", ["stem.weight"], list(node.output), to=1))

    with pytest.raises(ArtifactError, match="has a Cast of quantised numbers"):
        BundleTwin(changed(make(tmp_path / "bundle", "bound", "int8"), cast))


_OPENED = """
import sys
from pathlib import Path
import numpy, onnx, onnxruntime, torch
from floats_edge.artifacts.bundle import open_bundle
from floats_edge.evaluation.robustness import evaluate
from floats_edge.images import Images
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.twin import BundleTwin
from floats_edge.runtime.twin_graph import GraphNetwork
from floats_edge.runtime.twin_operators import OPERATORS
from floats_edge.runtime.twin_tensors import Run
before = set(sys.modules)
bundle = open_bundle(Path(sys.argv[1]))
shape = bundle.manifest.input.shape
images = Images(numpy.arange(4), lambda at: numpy.zeros((len(at), *shape), numpy.uint8))
with open_predictor(bundle, "ort-cpu", 0.3) as engine:
    evaluate(engine, BundleTwin(bundle), images, (0.3,), bundle.manifest.recipe.evaluate.attack, seed=0)
print(*sorted(set(sys.modules) - before))
assert "floats_edge.networks.build" not in sys.modules
"""


def test_nothing_is_imported_because_a_bundle_names_it(tmp_path: Path) -> None:
    """A stranger's module stands for the network, labels, nodes and a folder; opening imports nothing."""
    (tmp_path / "stranger_code.py").write_text("raise SystemExit('imported')")

    def names(graph: onnx.GraphProto) -> None:
        for at, node in enumerate(graph.node):
            node.name = f"stranger_code:network{at}"
        graph.name = "stranger_code"

    bundle = changed(make(tmp_path / "bundle", "fixed"), names)
    recipe = bundle.manifest.recipe
    data = recipe.data.model_copy(update={"root": "stranger_code"})
    model = NetworkSpec(source="python", name="stranger_code:network")
    recipe = recipe.model_copy(update={"data": data, "model": model})
    output = bundle.manifest.output.model_copy(update={"labels": tuple(f"stranger_code.{c}" for c in "abcde")})
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"recipe": recipe, "output": output}))
    done = subprocess.run(
        (sys.executable, "-c", _OPENED, str(bundle.path)), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert tops - sys.stdlib_module_names <= {"floats_edge", "numpy", "onnx", "onnxruntime", "torch"}
