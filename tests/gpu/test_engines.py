import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import pytest
from fixtures.parity import TOLERANCE, error
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, build_engines, images
from onnx import TensorProto, helper, numpy_helper

from floats_edge.artifacts.cache import read_cache
from floats_edge.deploy.engine_request import BuildRequest, EngineOptions
from floats_edge.deploy.tensorrt_engine import build_engine
from floats_edge.deploy.two_of_four import holds_two_of_four, sparse_tactics
from floats_edge.profiling.layers import join_layers
from floats_edge.profiling.workload import layer_workloads
from floats_edge.runtime.base import Host
from floats_edge.runtime.cuda import open_cuda
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.tensorrt_library import make_runtime, preferred_tensorrt
from floats_edge.runtime.trt import open_trt
from floats_edge.runtime.trt_lambda import RefittedWeights

OPTIONS = EngineOptions(batch=(1, 4, 8))
pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_an_engine_computes_what_onnx_runtime_does(bundles, mode, precision):
    bundle = bundles[mode, precision]
    lambdas = bundle.manifest.lam.values or (0.0, 1.0, 0.25)
    some = images(19)
    with open_trt(bundle, lambdas[0]) as predictor, open_ort(bundle, "ort-cpu", lambdas[0]) as reference:
        for lam in (*lambdas, *lambdas):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            for count in (1, 8, 19):
                batch = some[:count]
                assert error(predictor.predict(batch), reference.predict(batch)) <= TOLERANCE[precision]


@pytest.mark.parametrize("host", [Host(), Host(cuda_graph=True)], ids=["plain", "CUDA graph"])
@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input", "refit"])
def test_many_parts_that_overlap_compute_what_they_do_one_by_one(bundles, mode, host):
    bundle = bundles[mode, "fp32"]
    some = images(203)
    if host.cuda_graph:
        need_graphs()
    with open_trt(bundle, (bundle.manifest.lam.values or (0.25,))[0], host) as predictor:
        wanted = np.concatenate([predictor.predict(some[start : start + 8]) for start in range(0, len(some), 8)])
        for _ in range(20):
            assert error(predictor.predict(some), wanted) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("mode", ["bound", "input", "refit"])
def test_switching_changes_what_an_engine_computes_and_switching_back_restores_it(bundles, mode):
    with open_trt(bundles[mode, "fp32"], 0.0) as predictor:
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


# Refitting


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("memory", ["DEVICE", "HOST"])
def test_weights_are_refitted_from_device_and_from_host_memory(bundles, monkeypatch, precision, memory):
    bundle = bundles["refit", precision]
    take = RefittedWeights._take
    monkeypatch.setattr(
        RefittedWeights,
        "_take",
        lambda self, name, array, location: location == memory and take(self, name, array, location),
    )
    with open_trt(bundle, 0.0) as predictor, open_ort(bundle, "ort-cpu", 0.0) as reference:
        assert predictor._lambda.location == memory
        for lam in (1.0, 0.25, 0.0):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            assert error(predictor.predict(images(8)), reference.predict(images(8))) <= TOLERANCE[precision]


def test_an_engine_refits_the_weights_that_depend_on_lambda_and_no_others(bundles):
    bundle = bundles["refit", "fp32"]
    with open_trt(bundle, 0.0) as predictor:
        assert set(predictor._lambda._refitter.get_all_weights()) == set(bundle_weights(bundle).varying)


# What can be asked of an engine


def test_an_engine_comes_with_the_details_of_its_layers(bundles):
    bundle = bundles["fixed", "fp16"]
    (engine,) = bundle.manifest.engines
    layers = json.loads(bundle.read(engine.file.replace(".plan", ".layers.json")))["Layers"]
    assert layers
    assert all(isinstance(layer, dict) and "Name" in layer for layer in layers)


def test_tactics_are_timed_once(full_tensorrt, build):
    bundle = build("fixed", "fp16")
    (file,) = Path(os.environ["XDG_CACHE_HOME"], "floats-edge").glob("timing-*.cache")
    timed = read_cache(file)
    assert timed
    (engine,) = build_engines(bundle, OPTIONS).manifest.engines
    assert (
        f"timing cache {file}: {len(timed)} bytes" in (bundle.path / engine.file.replace(".plan", ".log")).read_text()
    )


def test_kernels_of_rtx_are_compiled_once(build):
    if preferred_tensorrt()[0] != "tensorrt_rtx":
        pytest.skip("the full TensorRT compiles kernels when it builds")
    bundle = build("fixed", "fp16")
    for _ in range(2):
        with open_trt(bundle, 0.3) as predictor:
            predictor.predict(images(8))
        (file,) = Path(os.environ["XDG_CACHE_HOME"], "floats-edge").glob("kernels-*.cache")
        assert read_cache(file)


def test_a_version_compatible_engine_runs_and_says_so(full_tensorrt, build):
    bundle = build("fixed", "fp16", EngineOptions(batch=(1, 4, 8), compatibility=("version",)))
    assert bundle.manifest.engines[0].compatibility == ("version",)
    with open_trt(bundle, 0.3) as predictor, open_ort(bundle, "ort-cpu", 0.3) as reference:
        assert error(predictor.predict(images(8)), reference.predict(images(8))) <= TOLERANCE["fp16"]


def test_a_hardware_compatible_engine_runs_here(full_tensorrt, build):
    if platform.machine() == "aarch64":
        pytest.skip("a Jetson builds no hardware-compatible engines")
    bundle = build("fixed", "fp16", EngineOptions(batch=(1, 4, 8), compatibility=("ampere+",)))
    with open_trt(bundle, 0.3) as predictor, open_ort(bundle, "ort-cpu", 0.3) as reference:
        assert error(predictor.predict(images(8)), reference.predict(images(8))) <= TOLERANCE["fp16"]


def test_a_dla_computes_the_same(full_tensorrt, build):
    _, trt = preferred_tensorrt()
    if make_runtime(trt).num_DLA_cores == 0:
        pytest.skip("this GPU has no DLA beside it")
    bundle = build("fixed", "fp16", EngineOptions(batch=(4, 4, 4), dla=0))
    with open_trt(bundle, 0.3) as predictor, open_ort(bundle, "ort-cpu", 0.3) as reference:
        assert error(predictor.predict(images(8)), reference.predict(images(8))) <= TOLERANCE["fp16"]


def test_tensorrt_tells_of_sparse_layers(full_tensorrt, build, tmp_path):
    """A convolution of 256 channels, of the size from which NVIDIA expects sparse kernels to pay."""
    onnx_file, plan = tmp_path / "sparse.onnx", tmp_path / "sparse.plan"
    weight = np.random.default_rng(0).normal(size=(256, 256, 3, 3)).astype(np.float16)
    weight[:, np.arange(256) % 4 >= 2] = 0
    assert holds_two_of_four(weight)
    onnx_file.write_bytes(convolution(weight))
    built = build_engine(BuildRequest(onnx_file, plan, EngineOptions((8, 8, 8)), sparse=True))
    tactics = sparse_tactics(("conv",), built.log)
    assert tactics.eligible == 1
    assert tactics.chosen in (0, 1)


def convolution(weight: np.ndarray) -> bytes:
    """images -> fp16 -> convolution of ``weight`` -> float32, as ONNX."""
    nodes = [
        helper.make_node("Cast", ["images"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "weight"], ["conv"], pads=[1] * 4),
        helper.make_node("Cast", ["conv"], ["logits"], to=TensorProto.FLOAT),
    ]
    out, channels = weight.shape[:2]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, 56, 56])
        for name, count in (("images", channels), ("logits", out))
    ]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def need_graphs() -> None:
    with open_cuda(graphs=True) as cuda:
        if not cuda.has_graphs and preferred_tensorrt()[0] == "tensorrt":
            pytest.skip("pycuda alone has no graphs")


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input", "refit"])
def test_a_cuda_graph_computes_the_same(bundles, mode):
    bundle = bundles[mode, "fp32"]
    lambdas = bundle.manifest.lam.values or (0.0, 1.0, 0.25)
    need_graphs()
    with open_trt(bundle, lambdas[0], Host(cuda_graph=True)) as graph, open_trt(bundle, lambdas[0]) as plain:
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


@pytest.mark.parametrize("mode", ["fixed", "bound", "refit"])
def test_a_profiler_changes_no_logits(bundles, mode):
    with open_trt(bundles[mode, "fp16"], 0.3 if mode == "fixed" else 0.5) as predictor:
        before = predictor.predict(images(8))
        predictor.kernels(images(8), 20)
        assert error(predictor.predict(images(8)), before) <= TOLERANCE["fp16"]


@pytest.mark.parametrize("mode", ["fixed", "bound"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_kernels_of_every_layer_are_timed(bundles, mode, precision):
    bundle = bundles[mode, precision]
    with open_trt(bundle, 0.3) as predictor:
        kernels = predictor.kernels(images(8), 10)
    assert {len(times) for times in kernels.times.values()} == {10}
    assert kernels.origins.keys() & kernels.times.keys(), (
        "the profiler and the inspector call kernels by the same names"
    )
    workloads = layer_workloads(bundle)
    layers = join_layers(kernels, workloads, batch=8)
    known = {name for layer in layers if layer.macs is not None for name in layer.name.split(" + ")}
    assert known == {work.name for work in workloads}


def test_memory_is_told(bundles):
    with open_trt(bundles["fixed", "fp32"], 0.3) as predictor:
        memory = predictor.memory()
    for part in ("engine plan", "buffers on the GPU", "page-locked buffers"):
        assert memory[part].value > 0
    assert all(reading.source for reading in memory.values())
