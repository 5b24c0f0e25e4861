import time

import numpy as np
import pytest
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, images

from floats_edge.errors import BackendError
from floats_edge.runtime.base import Host
from floats_edge.runtime.cuda import open_cuda
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.trt import open_trt

pytestmark = pytest.mark.gpu
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 3e-2, "int8": 5e-2}
"""Largest logit error over the range of the logits, against ONNX Runtime on the CPU."""


def error(logits, reference):
    assert logits.shape == reference.shape
    return np.abs(logits - reference).max() / np.ptp(reference)


def of(bundles, mode, precision):
    if (mode, precision) not in bundles:
        pytest.skip("TensorRT-RTX builds no refittable engine")
    return bundles[mode, precision]


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_an_engine_computes_what_onnx_runtime_does(bundles, mode, precision):
    bundle = of(bundles, mode, precision)
    lambdas = bundle.manifest.lam.values or (0.0, 1.0, 0.25)
    some = images(19)
    with open_trt(bundle, lambdas[0]) as predictor, open_ort(bundle, "ort-cpu", lambdas[0]) as reference:
        for lam in (*lambdas, *lambdas):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            for count in (1, 8, 19):
                batch = some[:count]
                assert error(predictor.predict(batch), reference.predict(batch)) <= TOLERANCE[precision]


@pytest.mark.parametrize("mode", ["bound", "input", "refit"])
def test_switching_changes_what_an_engine_computes_and_switching_back_restores_it(bundles, mode):
    with open_trt(of(bundles, mode, "fp32"), 0.0) as predictor:
        clean = predictor.predict(images(4))
        predictor.set_lambda(1.0)
        assert error(predictor.predict(images(4)), clean) > 0.01
        predictor.set_lambda(0.0)
        assert error(predictor.predict(images(4)), clean) <= TOLERANCE["fp32"]


def test_two_predictors_do_not_disturb_each_other(bundles):
    bundle = bundles["bound", "fp32"]
    with open_trt(bundle, 0.0) as clean, open_trt(bundle, 1.0) as robust:
        before = clean.predict(images(4))
        robust.predict(images(4))
        assert error(clean.predict(images(4)), before) <= TOLERANCE["fp32"]


def test_closing_gives_the_memory_back(bundles):
    bundle = bundles["bank", "fp32"]
    with open_trt(bundle, 0.0) as predictor:
        predictor.predict(images(8))
    with open_cuda() as cuda:
        before, _ = cuda.memory_info()
        for _ in range(5):
            with open_trt(bundle, 0.0) as predictor:
                predictor.predict(images(8))
        after, total = cuda.memory_info()
    assert before - after < 16 * 2**20 < total


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input", "refit"])
def test_a_cuda_graph_computes_the_same(bundles, mode):
    bundle = of(bundles, mode, "fp32")
    lambdas = bundle.manifest.lam.values or (0.0, 1.0, 0.25)
    with open_trt(bundle, lambdas[0], Host(cuda_graph=True)) as graph, open_trt(bundle, lambdas[0]) as plain:
        try:
            graph.predict(images(1))
        except BackendError as no_graphs:
            pytest.skip(no_graphs.what)  # pycuda has no graphs
        for lam in (*lambdas, *lambdas):
            graph.set_lambda(lam)
            plain.set_lambda(lam)
            for count in (3, 3, 8, 19, 3):
                assert error(graph.predict(images(count)), plain.predict(images(count))) <= TOLERANCE["fp32"]


def test_the_time_on_the_device_is_less_than_the_whole(bundles):
    with open_trt(bundles["bound", "fp32"], 0.5) as predictor:
        some = images(8)
        device = [predictor.device_ms(some) for _ in range(50)]
        start = time.perf_counter()
        for _ in range(50):
            predictor.predict(some)
        whole = 1000 * (time.perf_counter() - start) / 50
        assert 0 < np.median(device) < whole


def test_memory_is_told(bundles):
    with open_trt(bundles["fixed", "fp32"], 0.3) as predictor:
        memory = predictor.memory()
    for part in ("engine plan", "buffers on the GPU", "page-locked buffers"):
        assert memory[part].value > 0
    assert all(reading.source for reading in memory.values())
