import importlib
import sys

import numpy as np
import pytest
from fixtures.fake_cuda_runtime import FakeRuntime
from fixtures.tiny_bundle import images, with_plans, write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import BackendError
from floats_edge.runtime.base import Host
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.trt import open_trt

GRAPH = Host(cuda_graph=True)
VALUES = {"fixed": (0.3,), "bank": (0.0, 0.3, 1.0)}


@pytest.fixture
def trt(fake_driver, monkeypatch):
    """The stand-in of TensorRT, with cuda-python and without pycuda."""
    module = importlib.import_module("tensorrt")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    return module


def make(folder, mode: str) -> Bundle:
    """A bundle with a plan of the stand-in for each graph, for 1 to 8 images."""
    return with_plans(write_bundle(folder, VALUES.get(mode), "fp32", mode))


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input", "refit"])
def test_graphs_compute_the_same_at_every_lambda_and_batch(trt, tmp_path, mode):
    bundle = make(tmp_path / "bundle", mode)
    lambdas = VALUES.get(mode, (0.0, 0.3, 1.0))
    with open_trt(bundle, lambdas[0], GRAPH) as predictor, open_ort(bundle, "ort-cpu", lambdas[0]) as reference:
        assert predictor.backend == "trt, CUDA graph"
        for lam in (*lambdas, *lambdas):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            for count in (3, 3, 11, 3):
                wanted = reference.predict(images(count))
                assert np.abs(predictor.predict(images(count)) - wanted).max() <= 1e-5 * np.ptp(wanted)


def test_a_graph_is_recorded_once_per_shape_and_then_launched(trt, tmp_path):
    with open_trt(make(tmp_path / "bundle", "bound"), 0.5, GRAPH) as predictor:
        for _ in range(5):
            predictor.predict(images(2))
        assert (len(trt.ENQUEUED), len(trt.LAUNCHES)) == (2, 5)  # one that counts, one that is recorded
        predictor.predict(images(3))
        predictor.predict(images(3))
        assert (len(trt.ENQUEUED), len(trt.LAUNCHES)) == (4, 7)


def test_turning_the_knob_of_bound_weights_keeps_the_graph(trt, tmp_path):
    with open_trt(make(tmp_path / "bundle", "bound"), 0.0, GRAPH) as predictor:
        for lam in (0.0, 0.4, 1.0):
            predictor.set_lambda(lam)
            predictor.predict(images(2))
        assert len(trt.ENQUEUED) == 2


def test_graphs_are_freed(trt, tmp_path):
    with open_trt(make(tmp_path / "bundle", "bank"), 0.0, GRAPH) as predictor:
        for lam in (0.0, 0.3, 1.0):
            predictor.set_lambda(lam)
            for count in (1, 2, 1):
                predictor.predict(images(count))
        assert len(sys.modules["cuda.bindings.runtime"].executables) == 3
    assert sys.modules["cuda.bindings.runtime"].executables == {}


def test_the_time_on_the_device_is_that_of_a_graph_launch(trt, tmp_path):
    with open_trt(make(tmp_path / "bundle", "fixed"), 0.3, GRAPH) as predictor:
        predictor.predict(images(2))
        enqueued = len(trt.ENQUEUED)
        assert (predictor.device_ms(images(2)) or 0) > 0
        assert len(trt.ENQUEUED) == enqueued


def test_a_graph_has_no_times_of_kernels(trt, tmp_path):
    with open_trt(make(tmp_path / "bundle", "fixed"), 0.3, GRAPH) as predictor:
        before = predictor.predict(images(2))
        with pytest.raises(BackendError, match="a CUDA graph is one launch") as caught:
            predictor.kernels(images(2), 3)
        assert "cuda_graph" in caught.value.fix
        assert np.array_equal(predictor.predict(images(2)), before)


def test_pycuda_cannot_and_says_so_before_anything_is_loaded(fake_driver, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    trt = importlib.import_module("tensorrt")
    with pytest.raises(BackendError, match="pycuda has no CUDA graphs, and cuda-python is not installed") as caught:
        open_trt(make(tmp_path / "bundle", "fixed"), 0.3, GRAPH)
    assert "pip install '.[gpu]'" in caught.value.fix
    assert trt.DESERIALISED == []


def test_where_both_bindings_are_installed_graphs_are_recorded_by_the_one_that_can(fake_driver, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
    trt = importlib.import_module("tensorrt")
    with open_trt(make(tmp_path / "bundle", "fixed"), 0.3, GRAPH) as predictor:
        for _ in range(3):
            predictor.predict(images(2))
    assert (len(trt.ENQUEUED), len(trt.LAUNCHES)) == (2, 3)


# Memory


@pytest.mark.parametrize("mode", ["bound", "bank"])
def test_memory_is_told_by_part_with_its_source(trt, tmp_path, mode):
    bundle = make(tmp_path / "bundle", mode)
    count = len(bundle.manifest.engines)
    with open_trt(bundle, 0.0) as predictor:
        memory = predictor.memory()
    assert all(reading.unit == "MiB" and reading.source for reading in memory.values())
    plans = sum((bundle.path / engine.file).stat().st_size for engine in bundle.manifest.engines)
    assert memory["engine plan"].value == plans / 2**20
    assert memory["engine activations and workspace"].value == 3 * count
    weights = bundle_weights(bundle).memory.bytes.nbytes if mode == "bound" else 0
    images_and_logits = 4 * 8 * (3 * 8 * 8 + 5)
    assert memory["buffers on the GPU"].value == (images_and_logits + weights) / 2**20
    assert memory["page-locked buffers"].value == (images_and_logits + weights) / 2**20
    assert memory["GPU increase by cudaMemGetInfo"].value == 0  # the stand-in always has as much
    in_the_engine = memory["engine weights"].value
    assert in_the_engine == 0 if mode == "bound" else in_the_engine > 0


def test_a_version_that_does_not_tell_its_weights_says_so(trt, tmp_path, monkeypatch):
    monkeypatch.delattr(trt, "EngineStat")
    with open_trt(make(tmp_path / "bundle", "fixed"), 0.3) as predictor:
        weights = predictor.memory()["engine weights"]
    assert weights.value is None
    assert "10.3.0 has no ICudaEngine.get_engine_stat" in weights.source


def test_the_real_engine_has_the_figures_that_are_asked_for():
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    assert hasattr(rtx.ICudaEngine, "device_memory_size_v2")
    assert hasattr(rtx.ICudaEngine, "get_engine_stat")
    assert "TOTAL_WEIGHTS_SIZE" in rtx.EngineStat.__members__
