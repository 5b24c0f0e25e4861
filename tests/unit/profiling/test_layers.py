import dataclasses
from functools import partial
from pathlib import Path

import pytest
from fixtures.predictors import Sleeping
from fixtures.tiny_bundle import CLASSES, MODES_AND_PRECISIONS, write_bundle

from floats_edge.artifacts.manifest import Mode, Precision
from floats_edge.errors import BackendError
from floats_edge.profiling.layers import join_layers, trace_layers
from floats_edge.profiling.workload import Workload, layer_workloads, needed_memory
from floats_edge.runtime.backends import open_traced
from floats_edge.runtime.base import Kernels

STEM = Workload("stem", "Conv", "fp16", ("node_stem", "stem", "relu"), 1000, 100, 25, 30, 40)
HEAD = Workload("head", "Gemm", "fp32", ("node_head", "logits"), 10, 10, 10, 5, 5)


def joined(times: dict[str, list[float]], sparse: frozenset[str] | None = frozenset()):
    return join_layers(Kernels(times, "a profiler", sparse), [STEM, HEAD], batch=2)


@pytest.mark.parametrize("lambdas", [(0.3,), (0.0, 1.0), None], ids=["fixed", "bank", "bound"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_layer_of_a_bundle_has_its_work(lambdas, precision, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", lambdas, precision)
    stem, classifier = layer_workloads(bundle)
    assert (stem.name, stem.operator, stem.macs, stem.weights) == ("stem", "Conv", 8 * 8 * 8 * 27, 8 * 27)
    assert (stem.inputs, stem.outputs) == (3 * 64, 8 * 64)
    assert stem.nonzeros == bundle.manifest.layers[0].nonzeros < stem.weights
    assert (classifier.name, classifier.macs) == ("classifier", CLASSES * 8)


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_the_classifier_of_an_int8_bundle_counts_as_float(mode: Mode, precision: Precision, tmp_path: Path) -> None:
    lambdas = {"fixed": (0.3,), "bank": (0.0, 1.0)}.get(mode)
    stem, classifier = layer_workloads(write_bundle(tmp_path / "bundle", lambdas, precision, mode))
    assert stem.precision == precision
    assert classifier.precision == ("fp32" if precision == "int8" else precision)


def test_every_layer_moves_and_needs_bytes_of_its_own_precision() -> None:
    assert (STEM.moved_bytes(2), HEAD.moved_bytes(2)) == (2 * (100 + 2 * 70), 4 * (10 + 2 * 10))
    needed = needed_memory([STEM, HEAD, HEAD], batch=3)
    assert needed["weights"].value == pytest.approx((2 * 100 + 2 * 4 * 10) / 2**20)
    assert needed["activations, at least"].value == pytest.approx(2 * 3 * 70 / 2**20)
    assert "2 in fp32 and 1 in fp16" in needed["weights"].source
    assert "biases and scales of channels not" in needed["weights"].source


def test_the_largest_activations_are_those_with_most_bytes() -> None:
    narrow = Workload("narrow", "Conv", "int8", (), macs=1, weights=1, nonzeros=1, inputs=30, outputs=10)
    wide = Workload("wide", "Conv", "fp32", (), macs=1, weights=1, nonzeros=1, inputs=10, outputs=10)
    assert needed_memory([narrow, wide], batch=1)["activations, at least"].value == 4 * 20 / 2**20


@pytest.mark.parametrize("lambdas", [(0.3,), (0.0, 1.0), None], ids=["fixed", "bank", "bound"])
def test_onnx_runtime_tells_the_time_of_every_layer(lambdas, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", lambdas)
    opener = partial(open_traced, bundle, "ort-cpu", (lambdas or (0.5,))[0], 1)
    trace = trace_layers(opener, 2, layer_workloads(bundle))
    assert {"stem", "classifier"} <= {layer.name for layer in trace.layers}
    assert sum(layer.share for layer in trace.layers) == pytest.approx(1)
    assert [layer.time_us for layer in trace.layers] == sorted((la.time_us for la in trace.layers), reverse=True)
    (stem,) = (layer for layer in trace.layers if layer.name == "stem")
    assert stem.macs == 2 * 8 * 8 * 8 * 27
    assert stem.precision == "fp32"
    assert stem.bytes == 4 * (8 * 27 + 2 * (3 * 64 + 8 * 64))
    assert stem.sparse is False
    assert trace.source == "ONNX Runtime's profiler"


def test_a_backend_that_does_not_tell_is_an_error_of_its_own() -> None:
    with pytest.raises(BackendError, match="does not tell"):
        trace_layers(lambda folder: Sleeping(), 1, [STEM])


@pytest.mark.parametrize("kernel", ["node_stem", "stem_nchwc", "relu_nchwc", "InsertedPrecisionFreeCast_stem_nchwc"])
def test_kernels_are_known_by_the_names_that_optimisers_give_them(kernel: str) -> None:
    assert joined({kernel: [5.0]})[0].name == "stem"


def test_fused_kernels_belong_to_the_layer_that_multiplies() -> None:
    layer, other = joined({"node_stem + node_relu": [5.0, 7.0], "Reformatting": [1.0, 1.0]}, frozenset())
    assert (layer.name, layer.time_us, layer.macs, layer.bytes) == ("stem", 6.0, 2000, 2 * (100 + 2 * 70))
    assert (other.name, other.precision, other.macs) == ("Reformatting", None, None)


def test_kernels_of_one_layer_are_added_up() -> None:
    (layer,) = joined({"stem_nchwc": [5.0, 5.0], "node_stem": [2.0, 2.0]})
    assert layer.time_us == 7


def test_sparse_kernels() -> None:
    times = {"node_stem": [5.0], "node_head": [1.0]}
    assert [layer.sparse for layer in joined(times, frozenset({"node_stem"}))] == [True, False]
    assert [layer.sparse for layer in joined(times, None)] == [None, None]


@pytest.mark.parametrize(
    "kernel",
    ["node_stem_myl0_4", "node_stem_U3_myl0_4", "node_of_relu_myl0_1 [profile 1]", "other || node_stem_myl0_2"],
)
def test_names_of_tensorrt_without_metadata(kernel: str) -> None:
    assert joined({kernel: [5.0]})[0].name == "stem"


def test_where_the_backend_tells_what_a_kernel_was_made_of_its_name_does_not_count() -> None:
    kernels = Kernels({"node_head_myl0_1": [5.0]}, "a profiler", None, {"node_head_myl0_1": ("relu", "node_stem")})
    assert join_layers(kernels, [STEM, HEAD], batch=1)[0].name == "stem"


def test_a_kernel_of_two_layers_is_given_to_neither_alone() -> None:
    both, own = "node_head || node_stem_myl0_1", "node_stem_myl0_0"
    other, row = sorted(joined({own: [1.0, 1.0], both: [5.0, 7.0], "Move": [1.0, 1.0]}), key=lambda row: row.time_us)
    assert (row.name, row.operator, row.time_us) == ("stem + head", "Conv + Gemm", 7)
    assert (row.macs, row.weights, row.nonzeros) == (2 * (1000 + 10), 110, 35)
    assert (row.precision, row.bytes) == (None, None)  # fp16 and fp32; and what they share is not known
    assert (other.name, other.macs) == ("Move", None)


def test_an_activation_that_another_layer_took_in_does_not_make_two_of_it() -> None:
    follower = dataclasses.replace(STEM, tensors=("node_stem", "stem"), followers=("relu",))
    kernels = Kernels(
        {"k": [5.0], "__myl_Relu": [1.0]}, "x", None, {"k": ("relu", "node_head"), "__myl_Relu": ("relu",)}
    )
    assert [layer.name for layer in join_layers(kernels, [follower, HEAD], batch=1)] == ["head", "stem"]


def test_what_two_layers_share_besides_their_own_kernels_stands_apart() -> None:
    """Of an int8 residual block in a plan of TensorRT-RTX 1.7: two convolutions, and their scaled outputs' sum."""
    dequantized = ("node_of_relu.dequantized", "node_of_weight.dequantized")
    origins = {
        "node_conv2d_5_myl0_9": ("node_conv2d_5", *dequantized),
        "node_conv2d_3_myl0_10": ("node_conv2d_3", *dequantized),
        "__myl_MulAddMulAddAddRelu_myl0_11": ("node_conv2d_3", "node_add_66", "node_relu_4", "node_conv2d_5"),
    }
    layers = [dataclasses.replace(STEM, name=n, tensors=(f"node_conv2d_{n}", n), followers=()) for n in ("3", "5")]
    kernels = Kernels({name: [time] for name, time in zip(origins, (9.0, 5.0, 2.0), strict=True)}, "x", None, origins)
    rows = join_layers(kernels, layers, batch=1)
    assert [(row.name, row.time_us, row.macs) for row in rows] == [("5", 9, 1000), ("3", 5, 1000), ("3 + 5", 2, None)]
