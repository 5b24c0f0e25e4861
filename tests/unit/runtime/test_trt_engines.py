"""Which engine of a bundle is taken and how it is loaded. The host is a stand-in: TensorRT 10.3.0 on an Orin."""

import importlib
import re
import sys

import numpy as np
import pytest
from fixtures.tiny_bundle import add_engine, engine_entry, graph_bytes, images, write_bundle

from floats_edge.artifacts.cache import read_cache, write_cache
from floats_edge.deploy.engine_request import BuildRequest, EngineOptions
from floats_edge.deploy.tensorrt_engine import build_engine
from floats_edge.errors import BackendError
from floats_edge.runtime.base import DEFAULT_HOST, Host
from floats_edge.runtime.cuda import cuda_unavailable_reason
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.rtx_kernels import check_plan
from floats_edge.runtime.tensorrt_library import host_platform, make_runtime
from floats_edge.runtime.trt import open_trt, trt_unavailable_reason
from floats_edge.runtime.trt_engines import fitting_engines


@pytest.fixture
def trt(fake_driver):
    return importlib.import_module("tensorrt")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "10.13.0.35"}, r"a.plan: built by tensorrt 10.13.0.35; here is 10.3.0."),
        ({"version": "10.3.0.1"}, r"built by tensorrt 10.3.0.1; here is 10.3.0."),
        ({"platform": "windows-amd64"}, f"built for windows-amd64; this is {host_platform()}."),
        ({"targets": ("sm_86", "sm_120")}, r"built for sm_86, sm_120; this GPU is sm_87."),
        ({"flavour": "tensorrt_rtx"}, r"tensorrt_rtx cannot be imported"),
    ],
    ids=["other version", "other build of the version", "other platform", "other GPU", "flavour not installed"],
)
def test_an_engine_for_another_host_is_refused_before_it_is_deserialised(trt, tmp_path, monkeypatch, change, reason):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    bundle = add_engine(write_bundle(tmp_path / "bundle", None), engine_entry(**change), b"never read")
    with pytest.raises(BackendError, match=reason) as caught:
        open_trt(bundle, 0.5)
    assert caught.value.fix == f"floats-edge export {bundle.path} -o {bundle.path} --trt --batch 1:4:8"
    assert trt.DESERIALISED == []
    assert str(bundle.path) in (trt_unavailable_reason(bundle) or "")


def test_every_engine_that_does_not_fit_is_explained(trt, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", None)
    bundle = add_engine(bundle, engine_entry("old.plan", version="10.0.1"), b"")
    bundle = add_engine(bundle, engine_entry("desktop.plan", targets=("sm_89",)), b"")
    with pytest.raises(BackendError, match=r"old.plan: .*10.0.1.* desktop.plan: .*sm_89"):
        fitting_engines(bundle, "sm_87")


def test_the_first_engine_that_fits_is_taken(trt, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", None)
    for file, change in {"old": {"version": "10.0.1"}, "fits": {}, "fits-too": {}}.items():
        bundle = add_engine(bundle, engine_entry(file, **change), b"")
    assert fitting_engines(bundle, "sm_87")[None].file == "fits"
    assert trt_unavailable_reason(bundle) is None


def test_each_lambda_of_a_bank_needs_an_engine(trt, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", (0.0, 0.5))
    bundle = add_engine(bundle, engine_entry("zero.plan", lam=0.0), b"")
    with pytest.raises(BackendError, match=r"no engine for lambda 0.5 that runs here. There is none."):
        fitting_engines(bundle, "sm_87")
    bundle = add_engine(bundle, engine_entry("half.plan", lam=0.5), b"")
    assert {lam: found.file for lam, found in fitting_engines(bundle, "sm_87").items()} == {
        0.0: "zero.plan",
        0.5: "half.plan",
    }


def test_a_bundle_without_engines(trt, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", None)
    with pytest.raises(BackendError, match="holds no TensorRT engine") as caught:
        open_trt(bundle, 0.5)
    assert "--trt" in caught.value.fix
    assert trt_unavailable_reason(bundle) == f"{bundle.path} holds no TensorRT engine"


@pytest.mark.parametrize(
    "versions", [("10.3.0", "10.3.0"), ("10.3.0", "10.13.3.9"), ("10.9.0", "10.10.0"), ("10.3", "11.4")]
)
def test_a_version_compatible_engine_runs_on_its_version_and_on_newer_ones(
    fake_driver, monkeypatch, tmp_path, versions
):
    built, here = versions
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", here)
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    plan = b'[1, 8, [], "host code"]\n' + bundle.read("model-lam0.3.onnx")
    bundle = add_engine(bundle, engine_entry(lam=0.3, version=built, compatibility=("version",)), plan)
    with open_trt(bundle, 0.3) as predictor, open_ort(bundle, "ort-cpu", 0.3) as reference:
        wanted = reference.predict(images(3))
        assert np.abs(predictor.predict(images(3)) - wanted).max() <= 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize(
    "versions", [("10.13.0", "10.3.0"), ("11.0.0", "10.13.0"), ("10.3.0", "12.0.0"), ("unknown", "10.3.0")]
)
def test_it_runs_on_no_older_one_and_not_across_two_major_versions(fake_driver, monkeypatch, tmp_path, versions):
    built, here = versions
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", here)
    trt = importlib.import_module("tensorrt")
    entry = engine_entry(version=built, compatibility=("version",))
    bundle = add_engine(write_bundle(tmp_path / "bundle", None), entry, b"never read")
    with pytest.raises(BackendError, match=f"built by tensorrt {built} for it and newer ones; here is {here}"):
        open_trt(bundle, 0.3)
    assert trt.DESERIALISED == []


def test_host_code_is_allowed_to_version_compatible_engines_alone(trt, tmp_path):
    """A plan that brings a library which would be run, though its manifest says nothing of it."""
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    plan = b'[1, 8, [], "host code"]\n' + bundle.read("model-lam0.3.onnx")
    bundle = add_engine(bundle, engine_entry(lam=0.3), plan)
    with pytest.raises(BackendError, match="could not load"):
        open_trt(bundle, 0.3)


@pytest.mark.parametrize(
    ("compatibility", "target", "reason"),
    [
        (("ampere+",), "sm_120", None),
        (("ampere+",), "sm_75", "built for sm_86, and runs on Ampere or newer; this GPU is sm_75"),
        (("same-cc",), "sm_86", None),
        (("same-cc",), "sm_89", "built for sm_86; this GPU is sm_89"),
        (("version",), "sm_89", "built for sm_86; this GPU is sm_89"),
    ],
)
def test_a_hardware_compatible_engine_runs_on_what_it_says(trt, tmp_path, compatibility, target, reason):
    entry = engine_entry(targets=("sm_86",), compatibility=compatibility)
    bundle = add_engine(write_bundle(tmp_path / "bundle", None), entry, b"")
    if reason is None:
        assert fitting_engines(bundle, target)[None] == entry
    else:
        with pytest.raises(BackendError, match=reason):
            fitting_engines(bundle, target)


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        ({"gpu": "Orin"}, False),
        ({"gpu": "A10"}, True),
        ({"gpu": "A10", "compatibility": ("same-cc",)}, False),
        ({"gpu": None}, False),
    ],
    ids=["of this GPU", "of another", "made for others", "built without a GPU"],
)
def test_an_engine_of_another_gpu_of_this_capability_is_taken_with_a_warning(trt, tmp_path, caplog, entry, warned):
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    bundle = add_engine(bundle, engine_entry(lam=0.3, **entry), b"[1, 8]\n" + bundle.read("model-lam0.3.onnx"))
    with open_trt(bundle, 0.3) as predictor:
        assert predictor.predict(images(1)).shape == (1, 5)
    assert ("a.plan was built on A10 and this is Orin" in caplog.text) == warned
    assert ("--trt --batch 1:4:8" in caplog.text) == warned


def test_an_engine_for_a_dla_needs_one(trt, tmp_path, monkeypatch):
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    plan = b"[1, 8]\n" + bundle.read("model-lam0.3.onnx")
    bundle = add_engine(bundle, engine_entry("dla.plan", lam=0.3, dla=1), plan)
    with pytest.raises(BackendError, match=r"dla.plan: built for DLA 1; TensorRT finds 0 here"):
        open_trt(bundle, 0.3)
    assert trt.DESERIALISED == []
    monkeypatch.setenv("FAKE_DLA_CORES", "2")
    with open_trt(bundle, 0.3) as predictor:
        assert predictor.predict(images(1)).shape == (1, 5)
    assert trt.DLA_USED == [1]


def test_the_rebuild_command_keeps_the_batches_and_can_be_pasted(trt, tmp_path):
    bundle = write_bundle(tmp_path / "my bundle", None)
    assert_rebuilds(bundle, f"floats-edge export '{bundle.path}' -o '{bundle.path}' --trt")
    bundle = add_engine(bundle, engine_entry(version="9", batch=(1, 8, 32)), b"")
    assert_rebuilds(bundle, f"floats-edge export '{bundle.path}' -o '{bundle.path}' --trt --batch 1:8:32")


def assert_rebuilds(bundle, command):
    with pytest.raises(BackendError) as caught:
        open_trt(bundle, 0.5)
    assert caught.value.fix == command


# TensorRT-RTX


@pytest.mark.parametrize("target", ["sm_87", "sm_90", "sm_110"])
def test_the_real_tensorrt_rtx_says_which_gpus_it_does_not_know(fake_driver, tmp_path, monkeypatch, target):
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    entry = engine_entry(flavour="tensorrt_rtx", version=rtx.__version__, targets=("sm_86", target))
    bundle = add_engine(write_bundle(tmp_path / "bundle", None), entry, b"never read")
    assert fitting_engines(bundle, "sm_86")[None] == entry
    told = rf"TensorRT-RTX {rtx.__version__} knows sm_75, .*sm_120.*, not this GPU, {target}, which takes the"
    with pytest.raises(BackendError, match=told):
        fitting_engines(bundle, target)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(fake_driver.Device, "compute_capability", lambda _: divmod(int(target[3:]), 10))
    assert re.search(told, trt_unavailable_reason() or "")


def test_the_real_tensorrt_rtx_has_its_word_on_a_plan_before_it_is_loaded(tmp_path):
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    with pytest.raises(BackendError, match=r"cannot run .*a\.plan here: malformed engine\.") as caught:
        check_plan(rtx, make_runtime(rtx), b"no plan" * 100, tmp_path / "a.plan", "rebuild it")
    assert caught.value.fix == "rebuild it"
    if cuda_unavailable_reason() is None:
        pytest.skip("there is a GPU, for which a plan may be right")
    onnx, plan = tmp_path / "model.onnx", tmp_path / "model.plan"
    onnx.write_bytes(graph_bytes(0.3, "fp32"))
    build_engine(BuildRequest(onnx, plan, EngineOptions(targets=("sm_86",))))
    with pytest.raises(BackendError, match=r"cannot run .*model\.plan here: its own message is in the log"):
        check_plan(rtx, make_runtime(rtx), plan.read_bytes(), plan, "rebuild it")


@pytest.fixture
def rtx_bundle(trt, tmp_path, monkeypatch):
    """A bundle for the stand-in, which passes for TensorRT-RTX as well; caches go to a folder of the test's own."""
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    plan = b"[1, 8]\n" + bundle.read("model-lam0.3.onnx")
    return add_engine(bundle, engine_entry(lam=0.3, flavour="tensorrt_rtx"), plan)


def run(bundle, count, host=DEFAULT_HOST):
    with open_trt(bundle, 0.3, host) as predictor:
        return predictor.predict(images(count))


def test_a_plan_of_which_rtx_thinks_little_is_refused_or_warned_of(rtx_bundle, trt, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_TENSORRT", "invalid")
    with pytest.raises(BackendError, match=r"cannot run .*a\.plan here: unsupported cc") as caught:
        run(rtx_bundle, 2)
    assert "--trt" in caught.value.fix
    assert trt.DESERIALISED == []
    monkeypatch.setenv("FAKE_TENSORRT", "suboptimal")
    assert run(rtx_bundle, 2).shape == (2, 5)
    assert "a.plan may be slower than one built here: unsupported cc" in caplog.text


def test_rtx_compiles_kernels_once(rtx_bundle, trt, tmp_path):
    first = run(rtx_bundle, 2)
    assert trt.COMPILED == [2]
    assert np.array_equal(run(rtx_bundle, 2), first)
    assert trt.COMPILED == [2]
    run(rtx_bundle, 3)
    run(rtx_bundle, 2)
    run(rtx_bundle, 3)
    assert trt.COMPILED == [2, 3]
    (file,) = (tmp_path / "cache" / "floats-edge").iterdir()
    assert rtx_bundle.manifest.files["a.plan"].sha256[:16] in file.name


def test_what_rtx_runs_first_is_what_serves(rtx_bundle, trt):
    """And no fallback that kernels compiled in the background replace."""
    run(rtx_bundle, 2)
    ((_, specialisation),) = trt.STRATEGIES
    assert specialisation is trt.DynamicShapesKernelSpecializationStrategy.EAGER


def test_two_cards_in_a_machine_keep_their_kernels_apart(rtx_bundle, trt, tmp_path, monkeypatch, fake_driver):
    run(rtx_bundle, 2)
    monkeypatch.setattr(fake_driver.Device, "name", lambda _: "Orin/NX")
    run(rtx_bundle, 2)
    assert trt.COMPILED == [2, 2]
    names = sorted(file.name for file in (tmp_path / "cache" / "floats-edge").iterdir())
    assert ["sm_87-Orin_NX-" in name for name in names] == [False, True]


@pytest.mark.parametrize("kernels", [b"for another GPU: 2", None], ids=["of another GPU", "damaged"])
def test_kernels_that_do_not_fit_are_compiled_again_and_replaced(rtx_bundle, trt, tmp_path, kernels):
    first = run(rtx_bundle, 2)
    (file,) = (tmp_path / "cache" / "floats-edge").iterdir()
    if kernels is None:
        file.write_bytes(file.read_bytes()[:-1])
    else:
        write_cache(file, kernels)
    assert np.array_equal(run(rtx_bundle, 2), first)
    assert trt.COMPILED == [2, 2]
    assert read_cache(file) == b"for Orin: 2"


def test_without_a_place_for_caches_rtx_runs_all_the_same(rtx_bundle, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    assert run(rtx_bundle, 2).shape == (2, 5)


def test_rtx_makes_cuda_graphs_in_the_one_context_that_keeps_its_kernels(rtx_bundle, trt, monkeypatch):
    """Its own graphs: the CUDA binding of this test, pycuda, has none."""
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    plain = run(rtx_bundle, 2)
    assert np.array_equal(run(rtx_bundle, 2, Host(cuda_graph=True)), plain)
    assert trt.COMPILED == [2], "the kernels of the first run are used"
    strategies = [graphs for graphs, _ in trt.STRATEGIES]
    assert strategies == [trt.CudaGraphStrategy.DISABLED, trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE]


def test_rtx_that_cannot_make_a_graph_is_no_row_with_one(rtx_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setenv("FAKE_TENSORRT", "not capturable")
    with pytest.raises(BackendError, match=r"cannot make a CUDA graph of this engine for a batch of 2") as caught:
        run(rtx_bundle, 2, Host(cuda_graph=True))
    assert "--cuda-graph" in caught.value.fix
    assert run(rtx_bundle, 2).shape == (2, 5)


def test_an_old_rtx_has_no_cuda_graphs(rtx_bundle, trt, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.delattr(trt, "CudaGraphStrategy")
    with pytest.raises(BackendError, match=r"TensorRT-RTX 10\.3\.0 has no CUDA graphs; 1\.2 is the first"):
        run(rtx_bundle, 2, Host(cuda_graph=True))
    assert trt.DESERIALISED == []
    assert run(rtx_bundle, 2).shape == (2, 5)


def test_the_real_tensorrt_rtx_has_cuda_graphs_and_runtime_caches():
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    assert {"create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy"} <= set(dir(rtx.IRuntimeConfig))
    assert hasattr(rtx.IExecutionContext, "is_stream_capturable")
    assert "WHOLE_GRAPH_CAPTURE" in rtx.CudaGraphStrategy.__members__
    assert {"deserialize", "serialize"} <= set(dir(rtx.IRuntimeCache))
    assert "runtime_config" in (rtx.ICudaEngine.create_execution_context.__doc__ or "")
    assert hasattr(rtx.ICudaEngine, "create_runtime_config")
    assert hasattr(rtx.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert "EAGER" in rtx.DynamicShapesKernelSpecializationStrategy.__members__
