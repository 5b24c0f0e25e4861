import dataclasses
import importlib
import json
import sys

import numpy as np
import pytest
from fixtures.tiny_bundle import add_engine, affine_layers, engine_entry, images, write_bundle

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.files import pack_tensors, write_atomic
from floats_edge.artifacts.weights import pack_weights
from floats_edge.errors import ArtifactError, BackendError, LambdaError
from floats_edge.profiling.layers import trace_layers
from floats_edge.profiling.workload import layer_workloads
from floats_edge.runtime.backends import load
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.tensorrt_library import load_tensorrt, preferred_tensorrt
from floats_edge.runtime.trt import open_trt, trt_unavailable_reason


@pytest.fixture
def trt(fake_driver):
    """The stand-in of TensorRT 10.3.0 on an Orin (sm_87)."""
    return importlib.import_module("tensorrt")


def with_engines(bundle: Bundle, batch: tuple[int, int, int]) -> Bundle:
    """The bundle with a plan of the stand-in for each graph."""
    for graph in bundle.manifest.graphs:
        plan = json.dumps([batch[0], batch[2]]).encode() + b"\n" + bundle.read(graph.file)
        bundle = add_engine(bundle, engine_entry(f"{graph.file}.plan", lam=graph.lam, batch=batch), plan)
    return bundle


@pytest.fixture
def bound(trt, tmp_path):
    return with_engines(write_bundle(tmp_path / "bound", None), (1, 4, 8))


def assert_same(trt_logits, ort_logits, tolerance=1e-5):
    assert trt_logits.dtype == np.float32
    assert trt_logits.shape == ort_logits.shape
    assert np.abs(trt_logits - ort_logits).max() <= tolerance * np.ptp(ort_logits)


# Timing


def test_kernels_carry_their_names_and_the_nodes_they_came_from(bound):
    with open_trt(bound, 0.5) as predictor:
        kernels = predictor.kernels(images(2), 3)
        before = predictor.predict(images(2))
        assert predictor.kernels(images(2), 2).times["stem_U3_myl0_0"] == pytest.approx([1, 1])
        assert np.array_equal(predictor.predict(images(2)), before)
    assert list(kernels.times) == ["stem_U3_myl0_0", "__myl_Glob_myl0_1", "__myl_Flat_myl0_2", "__myl_Gemm_myl0_3"]
    assert kernels.times["__myl_Glob_myl0_1"] == pytest.approx([2, 2, 2])
    assert kernels.source == "TensorRT IProfiler, kernels launched one by one"
    assert kernels.sparse == frozenset()
    assert kernels.origins["stem_U3_myl0_0"] == ("stem", "relu")
    assert kernels.origins["__myl_Gemm_myl0_3"] == ("classifier",)


@pytest.mark.parametrize("details", ["", "names only"])
def test_the_layers_of_a_trace_are_those_of_the_model(bound, monkeypatch, details):
    monkeypatch.setenv("FAKE_TENSORRT", details)
    trace = trace_layers(lambda _: open_trt(bound, 0.5), 2, layer_workloads(bound))
    names = {layer.name for layer in trace.layers if layer.macs is not None}
    assert names == ({"stem"} if details else {"stem", "classifier"})


def test_a_kernel_that_runs_several_times_in_an_inference_counts_as_often(bound):
    with open_trt(bound, 0.5) as predictor:
        once, thrice = predictor.kernels(images(8), 3), predictor.kernels(images(19), 3)
    assert thrice.times.keys() == once.times.keys()
    for kernel, times in once.times.items():
        assert thrice.times[kernel] == pytest.approx([3 * time for time in times])


def test_sparse_kernels_are_told_where_the_engine_holds_details(bound, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "sparse")
    with open_trt(bound, 0.5) as predictor:
        assert predictor.kernels(images(1), 1).sparse == {"stem_U3_myl0_0"}
    monkeypatch.setenv("FAKE_TENSORRT", "names only")
    with open_trt(bound, 0.5) as predictor:
        kernels = predictor.kernels(images(1), 1)
    assert (kernels.sparse, kernels.origins) == (None, {})


def test_time_on_the_device_is_of_one_launch(bound):
    with open_trt(bound, 0.5) as predictor:
        launches = importlib.import_module("tensorrt").LAUNCHES
        count = len(launches)
        elapsed = predictor.device_ms(images(2))
        assert elapsed is not None
        assert elapsed > 0
        assert len(launches) == count + 1
        assert predictor.device_ms(images(9)) is None


# Running


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("lambdas", [(0.3,), (0.0, 0.5, 1.0), None], ids=["fixed", "bank", "bound"])
def test_it_computes_what_onnx_runtime_does_at_every_lambda(trt, tmp_path, lambdas, precision):
    bundle = with_engines(write_bundle(tmp_path / "bundle", lambdas, precision), (1, 4, 8))
    some = images(5)
    switches = lambdas or (0.5, 0.0, 1.0, 0.25)
    with open_trt(bundle, switches[0]) as predictor, open_ort(bundle, "ort-cpu", switches[0]) as reference:
        assert predictor.backend == "trt"
        for lam in (*switches, *switches):
            assert predictor.set_lambda(lam) == reference.set_lambda(lam) == predictor.lam
            assert_same(predictor.predict(some), reference.predict(some))


def test_engines_are_loaded_by_themselves_where_they_run(bound):
    with load(bound.path) as predictor:
        assert predictor.backend == "trt"


def test_engines_that_do_not_run_here_are_told_and_the_cpu_takes_over(bound, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with load(bound.path) as predictor:
        assert predictor.backend == "ort-cpu"
    assert "has no engine that runs here. model.onnx.plan: tensorrt cannot be imported" in caplog.text
    with pytest.raises(BackendError):
        load(bound.path, backend="trt")
    assert load(write_bundle(bound.path.with_name("none"), None).path).backend == "ort-cpu"
    assert len(caplog.records) == 1
    with pytest.raises(BackendError, match="has no engine that runs here"):  # rather than bf16 that is emulated
        load(with_engines(write_bundle(bound.path.with_name("bf16"), None, "bf16"), (1, 4, 8)).path)


def test_switching_changes_the_logits(bound):
    with open_trt(bound, 0.0) as predictor:
        clean = predictor.predict(images(3))
        predictor.set_lambda(1.0)
        robust = predictor.predict(images(3))
    assert np.abs(clean - robust).max() > 0.1


def test_a_bound_engine_is_loaded_once_and_switching_allocates_nothing(bound, trt, fake_driver):
    with open_trt(bound, 0.0) as predictor:
        loaded, live = len(trt.DESERIALISED), dict(fake_driver.live)
        for lam in (0.1, 0.9, 0.0):
            predictor.set_lambda(lam)
        assert (len(trt.DESERIALISED), fake_driver.live) == (loaded, live)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 23])
def test_batches_larger_than_the_engine_takes_are_split(bound, trt, count):
    with open_trt(bound, 0.5) as predictor, open_ort(bound, "ort-cpu", 0.5) as reference:
        logits = predictor.predict(images(count))
        assert logits.shape == (count, 5)
        if count:
            assert_same(logits, reference.predict(images(count)))
    assert [shape[0] for shape in trt.LAUNCHES] == [8] * (count // 8) + [count % 8] * (count % 8 > 0)


def test_batches_smaller_than_the_engine_takes_are_filled_up(trt, tmp_path):
    bundle = with_engines(write_bundle(tmp_path / "bundle", (0.3,)), (4, 4, 8))
    with open_trt(bundle, 0.3) as predictor, open_ort(bundle, "ort-cpu", 0.3) as reference:
        for count in (1, 9):
            assert_same(predictor.predict(images(count)), reference.predict(images(count)))
    assert [shape[0] for shape in trt.LAUNCHES] == [4, 8, 4]


@pytest.mark.parametrize(
    ("lam", "message"), [(0.5, r"serves lambda 0.3, not 0.5"), (1.5, "1.5"), (float("nan"), "nan")]
)
def test_a_lambda_that_is_not_served_is_refused_before_anything_is_deserialised(trt, tmp_path, lam, message):
    bundle = with_engines(write_bundle(tmp_path / "bundle", (0.3,)), (1, 1, 1))
    with pytest.raises(LambdaError, match=message):
        open_trt(bundle, lam)
    assert trt.DESERIALISED == []


@pytest.mark.parametrize("batches", [[1, 2], [2, 8]])
def test_an_engine_for_other_batches_than_the_manifest_says_is_refused(bound, batches):
    plan = json.dumps(batches).encode() + b"\n" + bound.read("model.onnx")
    bundle = add_engine(write_bundle(bound.path.with_name("other"), None), engine_entry(), plan)
    with pytest.raises(ArtifactError, match=f"takes batches from {batches[0]} to {batches[1]}") as caught:
        open_trt(bundle, 0.5)
    assert "--trt" in caught.value.fix


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("images on the host", "images is no input"),
        ("stem.weight on the host", "stem.weight is no input"),
        ("logits in HWC8", "logits is no output"),
        ("stem.bias the other way", "stem.bias is no input"),
        ("logits the other way", "logits is no output"),
    ],
)
def test_an_engine_with_tensors_of_another_layout_is_refused(bound, monkeypatch, layout, message):
    monkeypatch.setenv("FAKE_TENSORRT", layout)
    with pytest.raises(ArtifactError, match=message):
        open_trt(bound, 0.5)


# Trusting


def test_a_tampered_plan_is_refused_before_it_is_deserialised(bound, trt):
    plan = bound.path / bound.manifest.engines[0].file
    plan.write_bytes(plan.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match="altered"):
        open_trt(bound, 0.5)
    assert trt.DESERIALISED == []


def test_a_truncated_plan_is_refused_before_it_is_deserialised(bound, trt):
    plan = bound.path / bound.manifest.engines[0].file
    plan.write_bytes(plan.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="altered"):
        open_trt(bound, 0.5)
    assert trt.DESERIALISED == []


def test_no_plan_of_a_bank_is_deserialised_before_every_one_was_checked(trt, tmp_path):
    bundle = with_engines(write_bundle(tmp_path / "bundle", (0.0, 0.5, 1.0)), (1, 4, 8))
    (bundle.path / bundle.manifest.engines[-1].file).write_bytes(b"altered")
    with pytest.raises(ArtifactError, match="altered"):
        open_trt(bundle, 0.0)
    assert trt.DESERIALISED == []


def test_a_switch_copies_what_depends_on_lambda_and_nothing_else(trt, fake_driver, monkeypatch, tmp_path):
    layers = affine_layers()
    stem = layers["stem"]
    layers["stem"] = dataclasses.replace(stem, bias_slope=stem.bias_slope * 0)
    bundle = with_engines(write_bundle(tmp_path / "bundle", None), (1, 4, 8))
    write_atomic(bundle.path / "weights.safetensors", pack_tensors(pack_weights(layers)))
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    bundle, copied, copy = open_bundle(bundle.path), [], fake_driver.memcpy_htod_async
    monkeypatch.setattr(fake_driver, "memcpy_htod_async", lambda *call: (copied.append(call[:2]), copy(*call)))
    with open_trt(bundle, 0.5) as predictor, open_ort(bundle, "ort-cpu", 0.5) as reference:
        addresses = predictor._lambda.addresses
        copied.clear()
        predictor.set_lambda(0.9)
        reference.set_lambda(0.9)
        [(start, page_locked)] = copied
        assert set(addresses) == {"stem.weight", "stem.bias", "classifier.weight", "classifier.bias"}
        held = {name for name, address in addresses.items() if start <= address < start + page_locked.nbytes}
        assert held == set(addresses) - {"stem.bias"}
        assert page_locked.ctypes.data in fake_driver.pinned
        assert_same(predictor.predict(images(2)), reference.predict(images(2)))


def test_a_plan_that_tensorrt_rejects(bound, trt, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "undeserialisable")
    with pytest.raises(BackendError, match="could not load") as caught:
        open_trt(bound, 0.5)
    assert f"floats-edge export {bound.path}" in caught.value.fix


def test_an_engine_that_takes_other_weights_is_refused(trt, tmp_path):
    fixed = with_engines(write_bundle(tmp_path / "fixed", (0.3,)), (1, 4, 8))
    plan = (fixed.path / fixed.manifest.engines[0].file).read_bytes()
    bundle = add_engine(write_bundle(tmp_path / "bound", None), engine_entry(), plan)
    with pytest.raises(ArtifactError, match=r"classifier.bias, classifier.weight, stem.bias, stem.weight differ"):
        open_trt(bundle, 0.5)


# Finding TensorRT


def test_the_full_tensorrt_is_preferred(trt):
    assert preferred_tensorrt() == ("tensorrt", trt)
    assert trt_unavailable_reason() is None


def test_tensorrt_rtx_is_taken_where_it_is_what_is_installed(monkeypatch):
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert preferred_tensorrt() == ("tensorrt_rtx", rtx)


def test_no_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendError, match=r"tensorrt cannot be imported.*tensorrt_rtx cannot be imported") as caught:
        preferred_tensorrt()
    assert f"{sys.executable} -m pip install tensorrt-rtx-cu13" in caught.value.fix
    assert "there is no TensorRT" in (trt_unavailable_reason() or "")


def test_a_folder_of_that_name_is_not_tensorrt(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError, match="tensorrt is not installed"):
        load_tensorrt("tensorrt")
    sys.modules.pop("tensorrt")


def test_an_old_tensorrt_is_refused(fake_driver, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", "8.6.2")
    with pytest.raises(BackendError, match=r"8.6.2 is older than 10.3"):
        load_tensorrt("tensorrt")


def test_what_tensorrt_says_goes_to_the_log(bound, trt, caplog):
    with open_trt(bound, 0.5) as predictor:
        logger = importlib.import_module("floats_edge.runtime.tensorrt_library").tensorrt_logger(trt)
        logger.log(trt.Severity.ERROR, "100 % broken")
        predictor.predict(images(1))
    assert ("floats_edge.tensorrt", 40, "100 % broken") in caplog.record_tuples


def test_the_real_module_has_the_names_that_are_used():
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    used = {
        "Runtime": ["deserialize_cuda_engine"],
        "ICudaEngine": [
            "create_execution_context",
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_shape",
            "get_tensor_dtype",
            "get_tensor_mode",
            "get_tensor_location",
            "get_tensor_format",
            "get_tensor_profile_shape",
        ],
        "IExecutionContext": ["set_tensor_address", "set_input_shape", "execute_async_v3"],
    }
    for name, members in used.items():
        assert not [member for member in members if not hasattr(getattr(rtx, name), member)]
    assert rtx.nptype(rtx.DataType.HALF) is np.float16
    assert {rtx.TensorIOMode.OUTPUT, rtx.TensorLocation.DEVICE, rtx.TensorFormat.LINEAR}
    severities = set(rtx.ILogger.Severity.__members__)
    assert severities == {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"}
