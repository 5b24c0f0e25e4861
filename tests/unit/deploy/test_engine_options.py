"""What can be asked of an engine: of the full TensorRT on a stand-in, of TensorRT-RTX for real."""

import json
from pathlib import Path

import pytest
from fixtures.tiny_bundle import build_engines, graph_bytes, write_bundle

from floats_edge.artifacts.cache import cache_file, read_cache, write_cache
from floats_edge.deploy.engine_request import BuildRequest, EngineOptions
from floats_edge.deploy.engines import check_options
from floats_edge.deploy.tensorrt_engine import build_engine
from floats_edge.errors import BackendError
from floats_edge.runtime.trt_engines import fitting_engines

FAKE_GPU = Path(__file__).parents[2] / "fixtures" / "fake_gpu"


@pytest.fixture
def full_tensorrt(monkeypatch, tmp_path):
    """Stand-ins of TensorRT and of a GPU for the child process, and a cache folder of the test's own."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE_GPU))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def rtx(monkeypatch, tmp_path):
    """The real TensorRT-RTX, in the child process too, even where the full TensorRT is installed."""
    (tmp_path / "tensorrt.py").write_text("raise ImportError('hidden by the test')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")


@pytest.fixture
def request_at(tmp_path):
    def make(sparse=False, **options) -> BuildRequest:
        (tmp_path / "model.onnx").write_bytes(graph_bytes(0.3, "fp16"))
        return BuildRequest(tmp_path / "model.onnx", tmp_path / "model.plan", EngineOptions(**options), sparse=sparse)

    return make


# What goes together


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": (0, 1, 1)}, "smallest"),
        ({"batch": (2, 1, 4)}, "smallest"),
        ({"batch": (1, 8, 4)}, "smallest"),
        ({"targets": ("SM86",)}, "'SM86' is no compute capability"),
        ({"compatibility": ("ampere+", "same-cc")}, "exclude each other"),
        ({"dla": 0, "batch": (1, 4, 8)}, "a DLA takes one batch size, and 1 to 8"),
    ],
)
def test_what_no_engine_can_be_is_refused(options, message):
    with pytest.raises(BackendError, match=message):
        EngineOptions(**options)


@pytest.mark.parametrize(("mode", "precision"), [("bound", "fp16"), ("fixed", "fp32"), ("bank", "bf16")])
def test_a_dla_computes_constants_in_fp16_or_int8(mode, precision):
    with pytest.raises(BackendError, match=f"a DLA cannot run mode {mode} in {precision}"):
        check_options(EngineOptions(dla=0), mode, precision)
    check_options(EngineOptions(), mode, precision)
    check_options(EngineOptions(dla=0), "fixed", "int8")


# The full TensorRT


def test_nothing_is_asked_for_by_default_but_details_of_the_layers(full_tensorrt, request_at):
    assert "flags: ; NONE; DETAILED; on GPU" in build_engine(request_at()).log


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"compatibility": ("version",)}, "flags: VERSION_COMPATIBLE; NONE; DETAILED; on GPU"),
        ({"compatibility": ("ampere+",)}, "flags: ; AMPERE_PLUS; DETAILED; on GPU"),
        (
            {"compatibility": ("version", "ampere+"), "sparse": True},
            "flags: SPARSE_WEIGHTS VERSION_COMPATIBLE; AMPERE_PLUS",
        ),
        ({"dla": 1}, "flags: GPU_FALLBACK; NONE; DETAILED; on DLA 1"),
        ({"targets": ("sm_87",)}, "on GPU"),
    ],
)
def test_tensorrt_is_told_what_is_asked_for(full_tensorrt, request_at, monkeypatch, options, told):
    monkeypatch.setenv("FAKE_DLA_CORES", "2")
    built = build_engine(request_at(**options))
    assert told in built.log
    assert [layer["Name"] if isinstance(layer, dict) else layer for layer in json.loads(built.layers)["Layers"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dla": 0}, "there is no DLA 0 here: TensorRT 10.3.0 finds 0"),
        ({"compatibility": ("same-cc",)}, "TensorRT 10.3.0 has no SAME_COMPUTE_CAPABILITY engines"),
        ({"targets": ("sm_86",)}, "compiles for the GPU it finds, which is sm_87, not sm_86"),
    ],
)
def test_what_this_tensorrt_or_this_board_lacks_is_said(full_tensorrt, request_at, options, message):
    request = request_at(**options)
    with pytest.raises(BackendError, match=message):
        build_engine(request)
    assert not request.plan.exists()


# What a DLA runs


def test_the_layers_that_a_dla_runs_are_counted_and_nothing_else_verbose_is_logged(
    full_tensorrt, monkeypatch, tmp_path
):
    monkeypatch.setenv("FAKE_DLA_CORES", "1")
    bundle = build_engines(write_bundle(tmp_path / "bundle", (0.3,), "fp16"), EngineOptions(dla=0))
    (engine,) = bundle.manifest.engines
    assert (engine.dla, engine.dla_layers) == (0, 1)
    log = bundle.read(engine.file.replace(".plan", ".log")).decode()
    assert "[DlaLayer] {ForeignNode[stem...pool]}" in log
    assert "[GpuLayer]" not in log


def test_an_engine_that_the_gpu_would_run_alone_is_refused(full_tensorrt, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_DLA_CORES", "1")
    monkeypatch.setenv("FAKE_TENSORRT", "no dla layer")
    bundle = write_bundle(tmp_path / "bundle", (0.3,), "fp16")
    with pytest.raises(BackendError, match=r"no layer to the DLA.*TensorRT said: Layer 'stem' .*Unsupported") as caught:
        build_engines(bundle, EngineOptions(dla=0))
    assert "leave --dla out" in caught.value.fix
    build_engines(bundle, EngineOptions())


def test_a_tensorrt_that_does_not_tell_what_a_dla_runs_is_believed(full_tensorrt, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_DLA_CORES", "1")
    monkeypatch.setenv("FAKE_TENSORRT", "says nothing of it")
    bundle = build_engines(write_bundle(tmp_path / "bundle", (0.3,), "fp16"), EngineOptions(dla=0))
    assert bundle.manifest.engines[0].dla_layers is None


# Timing cache of the full TensorRT


def timings() -> Path:
    return cache_file("timing", "tensorrt", "10.3.0", "sm_87", "Orin")


def test_tactics_are_timed_once(full_tensorrt, request_at, tmp_path):
    assert "timed before: False" in build_engine(request_at()).log
    assert timings().is_relative_to(tmp_path / "cache" / "floats-edge")
    assert read_cache(timings()) == b"timed"
    assert "timed before: True" in build_engine(request_at()).log


def test_a_damaged_timing_cache_is_not_given_to_tensorrt(full_tensorrt, request_at):
    write_cache(timings(), b"timed")
    timings().write_bytes(timings().read_bytes()[:-1])
    log = build_engine(request_at()).log
    assert "is damaged and is not used" in log
    assert "timed before: False" in log
    assert read_cache(timings()) == b"timed"


def test_a_timing_cache_that_tensorrt_rejects_is_replaced(full_tensorrt, request_at):
    write_cache(timings(), b"of another GPU")
    log = build_engine(request_at()).log
    assert "TensorRT does not accept them" in log
    assert read_cache(timings()) == b"timed"


def test_a_cache_that_cannot_be_written_does_not_stop_a_build(full_tensorrt, request_at, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    request = request_at()
    assert "nothing is cached" in build_engine(request).log
    assert request.plan.exists()


def test_a_failed_build_times_nothing(full_tensorrt, request_at, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "fail")
    with pytest.raises(BackendError):
        build_engine(request_at())
    assert not timings().exists()


# TensorRT-RTX


def test_rtx_compiles_for_the_targets_that_are_named(rtx, request_at, tmp_path):
    everything = build_engine(request_at())
    size = request_at().plan.stat().st_size
    built = build_engine(request_at(targets=("sm_120", "sm_75")))
    assert built.targets == ("sm_120", "sm_75")
    assert {"sm_80", "sm_120"} <= set(everything.targets)
    assert request_at().plan.stat().st_size != size
    assert built.layers is None
    assert built.gpu is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("sm_87",)}, "does not compile for sm_87"),
        ({"compatibility": ("version",)}, "neither compatible engines nor DLAs"),
        ({"dla": 0}, "neither compatible engines nor DLAs"),
    ],
)
def test_rtx_says_what_it_cannot_build(rtx, request_at, options, message):
    """Without this check it would fail late for lack of a library, or build for the GPU and say nothing of the DLA."""
    with pytest.raises(BackendError, match=message) as caught:
        build_engine(request_at(**options))
    assert "full" in caught.value.fix


def test_rtx_builds_with_leave_to_look_for_sparse_weights(rtx, request_at):
    assert "ERROR" not in build_engine(request_at(sparse=True)).log


# Several engines in a bundle


def test_a_bundle_holds_an_engine_of_each_kind_and_the_newest_that_fits_is_taken(rtx, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", (0.3,), "fp16")
    for targets in ((), ("sm_86",), ("sm_86", "sm_120"), ("sm_86",)):
        bundle = build_engines(bundle, EngineOptions(targets=targets))
    stem = f"engines/tensorrt_rtx-{rtx.__version__}"
    assert [engine.file for engine in bundle.manifest.engines] == [
        f"{stem}-sm_86-fp16-lam0.3.plan",
        f"{stem}-sm_86+sm_120-fp16-lam0.3.plan",
        f"{stem}-portable-fp16-lam0.3.plan",
    ]
    taken = {target: fitting_engines(bundle, target)[0.3].targets for target in ("sm_86", "sm_120", "sm_89")}
    assert taken["sm_86"] == ("sm_86",)
    assert taken["sm_120"] == ("sm_86", "sm_120")
    assert len(taken["sm_89"]) > 2
    with pytest.raises(BackendError, match=r"this GPU is sm_75.*this GPU is sm_75.*this GPU is sm_75"):
        fitting_engines(bundle, "sm_75")


def test_engines_of_the_full_tensorrt_are_told_apart_by_what_they_are_for(full_tensorrt, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_DLA_CORES", "2")
    bundle = write_bundle(tmp_path / "bundle", (0.3,), "fp16")
    for options in (EngineOptions(), EngineOptions(dla=1), EngineOptions(compatibility=("version",))):
        bundle = build_engines(bundle, options)
    assert [engine.file.removeprefix("engines/tensorrt-10.3.0-sm_87-fp16-") for engine in bundle.manifest.engines] == [
        "version-lam0.3.plan",
        "dla1-lam0.3.plan",
        "lam0.3.plan",
    ]
    for engine in bundle.manifest.engines:
        assert engine.gpu == "Orin"
        assert json.loads(bundle.read(engine.file.replace(".plan", ".layers.json")))["Layers"]
