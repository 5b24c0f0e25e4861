"""Every lambda mode at every precision: on ONNX Runtime, and as real TensorRT-RTX plans."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from fixtures.jetson import board
from fixtures.tiny_bundle import (
    MODES_AND_PRECISIONS,
    add_engine,
    engine_entry,
    graph_bytes,
    images,
    network,
    write_bundle,
)

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.deploy.engine_request import BuildRequest, EngineOptions
from floats_edge.deploy.tensorrt_builder import build, free_memory, mark_refittable
from floats_edge.deploy.tensorrt_engine import build_engine
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.evaluation.parity import GATES
from floats_edge.runtime.cuda import cuda_unavailable_reason, open_cuda
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.trt import open_trt

LAMBDAS = (0.0, 0.3, 1.0, 0.0, 0.7)
FAKE_GPU = Path(__file__).parents[2] / "fixtures" / "fake_gpu"
VALUES = {"fixed": (0.3,), "bank": (0.0, 0.3, 1.0)}


def make(folder, mode: str, precision: str) -> Bundle:
    return write_bundle(folder, VALUES.get(mode), precision, mode)


@pytest.fixture
def reference(tmp_path):
    """Logits of the fp32 network at any lambda."""

    def logits(lam: float) -> np.ndarray:
        bundle = write_bundle(tmp_path / f"reference-{lam}", (lam,))
        with open_ort(bundle, "ort-cpu", lam) as predictor:
            return predictor.predict(images(64))

    return logits


def assert_close(logits, reference, precision):
    assert np.abs(logits - reference).max() <= GATES[precision][1] * np.ptp(reference)


# ONNX Runtime


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_every_mode_at_every_precision_computes_the_network_at_every_lambda(tmp_path, reference, mode, precision):
    lambdas = VALUES.get(mode, LAMBDAS)
    with open_ort(make(tmp_path / "bundle", mode, precision), "ort-cpu", lambdas[0]) as predictor:
        for lam in (*lambdas, *lambdas):
            predictor.set_lambda(lam)
            assert_close(predictor.predict(images(64)), reference(lam), precision)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_bound_and_input_compute_with_the_same_rounded_weights(tmp_path, precision):
    bound, given = (make(tmp_path / mode, mode, precision) for mode in ("bound", "input"))
    with open_ort(bound, "ort-cpu", 0.3) as one, open_ort(given, "ort-cpu", 0.3) as other:
        assert_close(one.predict(images(64)), other.predict(images(64)), precision)


def test_bf16_on_the_cpu_rounds_like_bfloat16(tmp_path):
    with (
        open_ort(make(tmp_path / "b", "fixed", "bf16"), "ort-cpu", 0.3) as rounded,
        open_ort(make(tmp_path / "f", "fixed", "fp32"), "ort-cpu", 0.3) as exact,
    ):
        assert rounded.backend == "ort-cpu, bf16 emulated"
        logits = rounded.predict(images(8))
        assert np.array_equal(logits.view(np.uint32) & 0xFFFF, np.zeros(logits.shape, np.uint32))
        assert np.abs(logits - exact.predict(images(8))).max() > 0


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@pytest.mark.parametrize("lam", [0.0, 1e-3, 0.5, 1.0])
def test_the_graph_of_mode_input_follows_the_rule(rule, lam):
    import onnxruntime as ort

    net = network(rule)
    session = ort.InferenceSession(net.graph("input", None, "fp32", {}).SerializeToString())
    fixed = ort.InferenceSession(net.constant(lam).SerializeToString())
    wanted = fixed.run(None, {"images": images(4)})[0]
    got = session.run(None, {"images": images(4), "lambda": np.array(lam, np.float32)})[0]
    assert np.abs(got - wanted).max() <= 1e-5 * np.ptp(wanted)


def test_switching_on_the_cpu_changes_the_bound_memory_itself(tmp_path):
    with open_ort(make(tmp_path / "bundle", "bound", "fp32"), "ort-cpu", 0.0) as predictor:
        before = predictor.predict(images(2))
        predictor.set_lambda(1.0)
        assert np.abs(predictor.predict(images(2)) - before).max() > 0.1
        predictor.set_lambda(0.0)
        assert np.array_equal(predictor.predict(images(2)), before)


@pytest.mark.parametrize(
    "change",
    [lambda scale: scale[:-1], lambda scale: scale * 0, lambda scale: scale.astype(np.float64), lambda scale: -scale],
    ids=["too few", "zero", "float64", "negative"],
)
def test_a_damaged_scale_is_refused(tmp_path, change):
    from floats_edge.artifacts.files import pack_tensors

    bundle = make(tmp_path / "bundle", "bound", "int8")
    tensors = bundle.tensors("weights.safetensors")
    tensors["stem.weight.scale"] = change(tensors["stem.weight.scale"])
    (bundle.path / "weights.safetensors").write_bytes(pack_tensors(tensors))
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    with pytest.raises(ArtifactError, match=r"stem.weight.scale"):
        open_ort(open_bundle(bundle.path), "ort-cpu", 0.5)


# TensorRT-RTX, for real


@pytest.fixture
def rtx(monkeypatch, tmp_path):
    """The real TensorRT-RTX, in the child process too, even where the full TensorRT is installed."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "tensorrt.py").write_text("raise ImportError('hidden by the test')")
    monkeypatch.setenv("PYTHONPATH", str(blocked))
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("mode", ["fixed", "bound", "input"])
def test_rtx_builds_every_mode_at_every_precision(rtx, tmp_path, mode, precision):
    (tmp_path / "model.onnx").write_bytes(graph_bytes(0.3 if mode == "fixed" else None, precision, mode))
    built = build_engine(BuildRequest(tmp_path / "model.onnx", tmp_path / "model.plan", EngineOptions((1, 4, 16))))
    assert (tmp_path / "model.plan").stat().st_size > 100_000
    inputs = {"fixed": 1, "bound": 5, "input": 2}[mode]
    assert f"Detected {inputs} inputs and 1 output" in built.log


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_real_parser_knows_the_weights_to_be_refitted(rtx, precision):
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    parsed = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert rtx.OnnxParser(parsed, logger).parse(graph_bytes(None, precision, "refit"))
    names = ("stem.weight", "stem.bias", "classifier.weight", "classifier.bias")
    mark_refittable(parsed, names[:2])
    assert [parsed.are_weights_marked_refittable(name) for name in names] == [True, True, False, False]
    with pytest.raises(BackendError, match=r"no weights 'nowhere\.weight'"):
        mark_refittable(parsed, ("nowhere.weight",))


def test_rtx_refuses_a_refittable_engine_without_a_gpu_with_the_remedy(rtx, tmp_path):
    if cuda_unavailable_reason() is None:
        pytest.skip("there is a GPU here, which builds it: see tests/gpu")
    (tmp_path / "model.onnx").write_bytes(graph_bytes(None, "fp32", "refit"))
    request = BuildRequest(tmp_path / "model.onnx", tmp_path / "model.plan", refittable=("stem.weight",))
    with pytest.raises(
        BackendError, match="TensorRT-RTX builds a refittable engine only where there is a GPU that it knows: "
    ) as caught:
        build_engine(request)
    assert "--switch bound" in caught.value.fix
    assert not request.plan.exists()


def test_rtx_builds_a_refittable_engine_where_there_is_a_gpu_and_it_is_refitted(fake_driver, monkeypatch, tmp_path):
    """The stand-in of TensorRT passes for TensorRT-RTX, which has the same API."""
    trt = importlib.import_module("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle = write_bundle(tmp_path / "bundle", None, "fp32", "refit")
    names = tuple(bundle_weights(bundle).varying)
    plan = tmp_path / "model.plan"
    built = build(BuildRequest(bundle.path / "model.onnx", plan, EngineOptions((1, 4, 8)), names))
    assert (built.flavour, built.targets, built.gpu) == ("tensorrt_rtx", ("sm_86", "sm_87"), None)
    bundle = add_engine(bundle, engine_entry(flavour="tensorrt_rtx"), plan.read_bytes())
    with open_trt(bundle, 0.3) as predictor, open_ort(bundle, "ort-cpu", 0.3) as reference:
        for lam in (1.0, 0.3):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            wanted = reference.predict(images(3))
            assert np.abs(predictor.predict(images(3)) - wanted).max() <= 1e-5 * np.ptp(wanted)


def test_the_full_tensorrt_marks_what_it_is_told_to(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(FAKE_GPU))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model.onnx").write_bytes(graph_bytes(None, "fp32", "refit"))
    names = ("stem.weight", "stem.bias")
    build_engine(BuildRequest(tmp_path / "model.onnx", tmp_path / "model.plan", EngineOptions((1, 2, 4)), names))
    header = (tmp_path / "model.plan").read_bytes().partition(b"\n")[0]
    assert json.loads(header) == [1, 4, ["stem.weight", "stem.bias"]]


def test_tactics_may_work_in_half_of_the_memory_that_is_free(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(FAKE_GPU))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model.onnx").write_bytes(graph_bytes(0.3, "fp32"))
    built = build_engine(BuildRequest(tmp_path / "model.onnx", tmp_path / "model.plan", EngineOptions((1, 2, 4))))
    assert "building in 1536 MiB" in built.log, "the stand-in has 3 GiB free"


def test_on_a_jetson_that_is_what_the_system_would_give(fake_driver, monkeypatch, tmp_path):
    """The board's caches hold most of its memory; CUDA, here the stand-in's 3 GiB, counts none of that as free."""
    orin, elsewhere = board("orin-nano", tmp_path / "orin"), tmp_path / "elsewhere"
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(orin / "proc"))
    with open_cuda() as cuda:
        assert free_memory(cuda, orin) == 5_600_000 * 1024
        assert free_memory(cuda, elsewhere) == 3 * 2**30
