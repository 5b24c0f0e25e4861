from functools import partial
from pathlib import Path

import pytest
from fixtures.predictors import Sleeping
from fixtures.tiny_bundle import CLASSES, write_bundle

from floats_edge.errors import BackendError
from floats_edge.profiling.layers import join_layers, trace_layers
from floats_edge.profiling.workload import Workload, layer_workloads
from floats_edge.runtime.backends import open_traced
from floats_edge.runtime.base import Kernels

STEM = Workload("stem", "Conv", ("node_stem", "stem", "relu"), 1000, 100, 25, 30, 40)
HEAD = Workload("head", "Gemm", ("node_head", "logits"), 10, 10, 10, 5, 5)


def joined(times: dict[str, list[float]], sparse: frozenset[str] | None = frozenset()):
    return join_layers(Kernels(times, "a profiler", sparse), [STEM, HEAD], batch=2, precision="fp16")


@pytest.mark.parametrize("lambdas", [(0.3,), (0.0, 1.0), None], ids=["fixed", "bank", "bound"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_layer_of_a_bundle_has_its_work(lambdas, precision, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", lambdas, precision)
    stem, classifier = layer_workloads(bundle)
    assert (stem.name, stem.operator, stem.macs, stem.weights) == ("stem", "Conv", 8 * 8 * 8 * 27, 8 * 27)
    assert (stem.inputs, stem.outputs) == (3 * 64, 8 * 64)
    assert stem.nonzeros == bundle.manifest.layers[0].nonzeros < stem.weights
    assert (classifier.name, classifier.macs) == ("classifier", CLASSES * 8)


@pytest.mark.parametrize("lambdas", [(0.3,), (0.0, 1.0), None], ids=["fixed", "bank", "bound"])
def test_onnx_runtime_tells_the_time_of_every_layer(lambdas, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", lambdas)
    opener = partial(open_traced, bundle, "ort-cpu", (lambdas or (0.5,))[0], 1)
    trace = trace_layers(opener, 2, layer_workloads(bundle), "fp32")
    assert {"stem", "classifier"} <= {layer.name for layer in trace.layers}
    assert sum(layer.share for layer in trace.layers) == pytest.approx(1)
    assert [layer.time_us for layer in trace.layers] == sorted((la.time_us for la in trace.layers), reverse=True)
    (stem,) = (layer for layer in trace.layers if layer.name == "stem")
    assert stem.macs == 2 * 8 * 8 * 8 * 27
    assert stem.bytes == 4 * (8 * 27 + 2 * (3 * 64 + 8 * 64))
    assert stem.sparse is False
    assert trace.source == "ONNX Runtime's profiler"


def test_a_backend_that_does_not_tell_is_an_error_of_its_own() -> None:
    with pytest.raises(BackendError, match="does not tell"):
        trace_layers(lambda folder: Sleeping(), 1, [STEM], "fp32")


@pytest.mark.parametrize("kernel", ["node_stem", "stem_nchwc", "relu_nchwc", "InsertedPrecisionFreeCast_stem_nchwc"])
def test_kernels_are_known_by_the_names_that_optimisers_give_them(kernel: str) -> None:
    assert joined({kernel: [5.0]})[0].name == "stem"


def test_fused_kernels_belong_to_the_layer_that_multiplies() -> None:
    layer, other = joined({"node_stem + node_relu": [5.0, 7.0], "Reformatting": [1.0, 1.0]}, frozenset())
    assert (layer.name, layer.time_us, layer.macs, layer.bytes) == ("stem", 6.0, 2000, 2 * (100 + 2 * 70))
    assert (other.name, other.macs) == ("Reformatting", None)


def test_kernels_of_one_layer_are_added_up() -> None:
    (layer,) = joined({"stem_nchwc": [5.0, 5.0], "node_stem": [2.0, 2.0]})
    assert layer.time_us == 7


def test_sparse_kernels() -> None:
    times = {"node_stem": [5.0], "node_head": [1.0]}
    assert [layer.sparse for layer in joined(times, frozenset({"node_stem"}))] == [True, False]
    assert [layer.sparse for layer in joined(times, None)] == [None, None]
