"""Graphs of an untrained ResNet in every mode at every precision: what they hold, and what they weigh."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fixtures.tiny_bundle import MODES_AND_PRECISIONS
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from floats_edge.artifacts.files import pack_tensors
from floats_edge.artifacts.manifest import Mode, Precision
from floats_edge.artifacts.weights import pack_weights
from floats_edge.deploy import onnx_graph
from floats_edge.deploy.lambda_graph import Network
from floats_edge.method.condition import condition, conditioned_layers, fold, folded
from floats_edge.method.conditioning import conditioned_weights
from floats_edge.method.fold import AffineLayer, Rule
from floats_edge.method.semi_structured import is_eligible, is_two_of_four, random_mask
from floats_edge.networks.build import build, register
from floats_edge.networks.normalize import normalize
from floats_edge.networks.spec import NetworkSpec
from floats_edge.runtime.lambda_weights import InputWeights, LambdaWeights

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LAMBDAS = (0.0, 0.37, 1.0)

MaskOf = Callable[[tuple[int, ...], torch.Generator], torch.Tensor]


def plain_network() -> nn.Module:
    """Of 307,498 weights."""
    spec = NetworkSpec(name="resnet8", arguments={"width": 32})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(spec, classes=10, channels=3)
    normalize(network, (0.5,) * 3, (0.2,) * 3)
    return network.eval()


def float_network() -> nn.Module:
    network = plain_network()
    condition(network, IMAGES, register=register(NetworkSpec(name="resnet8")))
    return network


def layers_with(mask_of: MaskOf, rule: Rule) -> dict[str, AffineLayer]:
    """The layers of an untrained network with such masks; its two ends differ in every channel."""
    generator = torch.Generator().manual_seed(0)
    network = float_network()
    for weight in conditioned_weights(network).values():
        weight.set_mask(mask_of(tuple(weight.theta.shape), generator))
    for layer in conditioned_layers(network).values():
        if layer.norm is not None:
            layer.norm.adv.weight.data.mul_(1.5)
    return {name: layer.numpy() for name, layer in fold(conditioned_layers(network), rule).items()}


@pytest.fixture(scope="module")
def template() -> onnx.ModelProto:
    return onnx_graph.trace(folded(float_network(), 0.0), (3, 8, 8))


@pytest.fixture(scope="module")
def dense(template: onnx.ModelProto) -> Network:
    return Network(template, layers_with(lambda shape, generator: torch.ones(shape, dtype=torch.bool), "interpolate"))


@pytest.fixture(scope="module")
def tenth(template: onnx.ModelProto) -> Network:
    """An irregular mask of density 0.1."""
    return Network(
        template, layers_with(lambda shape, generator: torch.rand(shape, generator=generator) < 0.1, "paper")
    )


def graph_of(network: Network, mode: Mode, precision: Precision, lam: float = 0.3) -> onnx.ModelProto:
    ranges = dict.fromkeys(network.int8.tensors, 1.0)
    return network.graph(mode, lam if mode in ("fixed", "bank") else None, precision, ranges)


# What a graph is


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_opset_and_ir_are_those_that_boards_read(dense: Network, mode: Mode, precision: Precision) -> None:
    model = graph_of(dense, mode, precision)
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ("", 22 if precision == "bf16" else 18)
    assert model.ir_version <= 10
    assert not [node.op_type for node in model.graph.node if "Random" in node.op_type or node.domain]
    onnx_graph.finished(model, {})


def test_a_fixed_graph_has_the_nodes_of_the_unconditioned_network(dense: Network) -> None:
    """As the exporter itself writes that network, its BatchNorm folded and its graph optimised.

    But for what makes training faster: a projection of stride 2 subsamples before a convolution of stride 1.
    """
    batch = ({0: torch.export.Dim.AUTO},)
    program = torch.onnx.export(plain_network(), (IMAGES,), dynamo=True, dynamic_shapes=batch, verbose=False)
    assert program is not None
    plain = [node.op_type for node in program.model_proto.graph.node]
    fixed = [node.op_type for node in graph_of(dense, "fixed", "fp32").graph.node]
    assert fixed == [kind for kind in plain if kind != "AveragePool"]
    assert set(fixed) == {"Sub", "Div", "Conv", "Relu", "Add", "ReduceMean", "Gemm"}


# 2:4


def widened(array: NDArray[Any]) -> NDArray[np.float32]:
    """As float32; bfloat16 comes as its bits."""
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array.astype(np.float32)


def weights_of(network: Network, mode: Mode, precision: Precision, lam: float) -> Mapping[str, NDArray[np.float32]]:
    """All tensors from which a graph, or what feeds it, makes a weight at ``lam``."""
    if mode == "bound":
        scales = network.scales(None) if precision == "int8" else {}
        arrays = InputWeights(LambdaWeights(network.layers), precision, scales).at(lam)
        return {name: widened(array) for name, array in arrays.items()}
    model = graph_of(network, mode, precision, lam)
    return {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in model.graph.initializer}


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("mode", ["fixed", "bound", "input"])
def test_two_of_four_holds_in_every_eligible_weight_at_every_lambda(
    template: onnx.ModelProto, mode: Mode, precision: Precision, rule: Rule
) -> None:
    network = Network(template, layers_with(random_mask, rule))
    for lam in LAMBDAS:
        found = weights_of(network, mode, precision, lam)
        eligible = {
            name: torch.from_numpy(array)
            for name, array in found.items()
            if ".weight" in name and array.ndim > 1 and is_eligible(array.shape)
        }
        assert {name.partition(".weight")[0] for name in eligible} == set(network.layers) - {"stem"}
        assert [name for name, weight in eligible.items() if not is_two_of_four(weight)] == []
        assert all(bool(weight.any()) for weight in eligible.values())


# Size


def size(network: Network, mode: Mode) -> int:
    """Bytes of what tells one bundle from another: graph and weights."""
    graph = len(onnx_graph.finished(graph_of(network, mode, "fp32"), {}))
    return graph + (len(pack_tensors(pack_weights(network.layers))) if mode == "bound" else 0)


def test_a_bundle_for_any_lambda_is_hardly_larger_than_for_one(dense: Network) -> None:
    assert size(dense, "bound") <= 1.10 * size(dense, "fixed")


def test_at_density_a_tenth_it_is_less_than_a_fifth_of_the_dense_one(dense: Network, tenth: Network) -> None:
    """A tenth of the values and a bit for each weight: 0.1 + 1 / 32, besides vectors and the graph."""
    assert sum(layer.mask.sum() for layer in tenth.layers.values()) == pytest.approx(30_750, rel=0.02)
    assert size(tenth, "bound") <= 0.18 * size(dense, "bound")
