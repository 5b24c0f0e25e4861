"""In which order what TensorRT and CUDA hold is let go of, on stand-ins of both."""

import importlib
import json
import sys
import weakref

import pytest
from fixtures.fake_cuda_runtime import FakeRuntime
from fixtures.tiny_bundle import add_engine, engine_entry, images, with_plans, write_bundle

from floats_edge.errors import ArtifactError, BackendError
from floats_edge.runtime.base import Host
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.trt import open_trt


@pytest.fixture
def closing(fake_driver, monkeypatch, tmp_path):
    """A refitted engine, launched as a CUDA graph by cuda-python, and what happens to it: a list that fills."""
    importlib.import_module("tensorrt")
    runtime, happened = FakeRuntime(fake_driver), []
    for name, what in {"cudaGraphExecDestroy": "graph", "cudaStreamDestroy": "device"}.items():
        monkeypatch.setattr(runtime, name, noted(getattr(runtime, name), what, happened), raising=False)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    bundle = write_bundle(tmp_path / "bundle", None, "fp32", "refit")
    plan = json.dumps([1, 8, list(bundle_weights(bundle).varying)]).encode() + b"\n" + bundle.read("model.onnx")
    predictor = open_trt(add_engine(bundle, engine_entry(), plan), 0.3, Host(cuda_graph=True))
    predictor.predict(images(2))
    weakref.finalize(predictor._lambda._refitter, happened.append, "refitter")
    weakref.finalize(predictor._engines[None].engine, happened.append, "engine")
    weakref.finalize(predictor._engines[None].context, happened.append, "context")
    happened.clear()
    return predictor, happened


def noted(function, what, happened):
    def call(*arguments):
        happened.append(what)
        return function(*arguments)

    call.__name__ = function.__name__
    return call


def test_the_device_goes_last_and_a_refitter_before_its_engine(closing):
    predictor, happened = closing
    predictor.close()
    assert happened == ["graph", "refitter", "context", "engine", "device"]
    predictor.close()
    assert happened[5:] == [], "closed twice is closed"


def test_all_of_it_goes_even_if_something_fails(closing, monkeypatch):
    """The error keeps alive what it came from; everything else goes, and the device after it."""
    predictor, happened = closing
    kept = []
    monkeypatch.setattr(predictor._engines[None].__class__, "close", lambda _: kept.append("kernels"))
    runtime = sys.modules["cuda.bindings.runtime"]
    destroy = runtime.cudaGraphExecDestroy

    def fails(executable):
        destroy(executable)
        return (900,)

    monkeypatch.setattr(runtime, "cudaGraphExecDestroy", fails)
    with pytest.raises(BackendError, match="operation not permitted"):
        predictor.close()
    assert [event for event in happened if event in ("graph", "refitter", "device")] == ["graph", "refitter", "device"]
    assert kept == ["kernels"]


def test_what_rtx_made_a_context_with_outlives_it(fake_driver, monkeypatch, tmp_path):
    trt, happened = importlib.import_module("tensorrt"), []
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fake_driver.Context, "pop", noted(fake_driver.Context.pop, "device", happened))
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    plan = b"[1, 8]\n" + bundle.read("model-lam0.3.onnx")
    predictor = open_trt(add_engine(bundle, engine_entry(lam=0.3, flavour="tensorrt_rtx"), plan), 0.3)
    predictor.predict(images(2))
    loaded = predictor._engines[0.3]
    for what, made in {
        "context": loaded.context,
        "config": loaded.kernels._config,
        "cache": loaded.kernels._cache,
    }.items():
        weakref.finalize(made, happened.append, what)
    del loaded, made
    predictor.close()
    assert happened[0] == "context"
    assert set(happened[1:3]) == {"config", "cache"}
    assert happened[3] == "device"


def test_what_a_large_batch_took_goes_before_the_device(fake_driver, monkeypatch, tmp_path):
    importlib.import_module("tensorrt")
    happened = []
    monkeypatch.setattr(fake_driver.Context, "pop", noted(fake_driver.Context.pop, "device", happened))
    predictor = open_trt(with_plans(write_bundle(tmp_path / "bundle", (0.3,))), 0.3)
    predictor.predict(images(20))
    for _, *events in predictor._turns._turns:
        for event in events:
            weakref.finalize(event, happened.append, "event")
    for stream in (predictor._cuda.stream, predictor._turns._up):
        weakref.finalize(stream.raw, happened.append, "stream")
    del event, events, stream
    predictor.close()
    assert happened == [*["event"] * 4, *["stream"] * 2, "device"]


def test_an_engine_that_is_refused_does_not_outlive_the_device_either(fake_driver, monkeypatch, tmp_path):
    trt, happened = importlib.import_module("tensorrt"), []
    deserialise = trt.Runtime.deserialize_cuda_engine

    def watched(runtime, plan):
        engine = deserialise(runtime, plan)
        weakref.finalize(engine, happened.append, "engine")
        return engine

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", watched)
    monkeypatch.setattr(fake_driver.Context, "pop", noted(fake_driver.Context.pop, "device", happened))
    fixed, other = (write_bundle(tmp_path / name, (lam,)) for name, lam in (("fixed", 0.3), ("other", 0.5)))
    plan = b"[1, 8]\n" + other.read("model-lam0.5.onnx").replace(b"logits", b"scores")
    with pytest.raises(ArtifactError, match="not the one of its manifest: logits"):
        open_trt(add_engine(fixed, engine_entry(lam=0.3), plan), 0.3)
    assert happened == ["engine", "device"]
