"""TensorRT-RTX's plugin for ONNX Runtime where it cannot run: ONNX Runtime is real, package and GPU are stand-ins."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest
from fixtures.tiny_bundle import write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import BackendError
from floats_edge.profiling import stage
from floats_edge.runtime import ort_rtx
from floats_edge.runtime.backends import open_predictor, unavailable_reason
from floats_edge.runtime.base import DEFAULT_HOST
from floats_edge.runtime.ort_session import open_session

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``package(*libraries)``: the plugin's package, with files that are no libraries."""

    def made(*libraries: str) -> None:
        folder = tmp_path / PACKAGE
        folder.mkdir()
        (folder / "__init__.py").write_text(f"def get_library_path(): return {str(folder / 'libplugin.so')!r}\n")
        for library in libraries:
            (folder / library).write_text("no library")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, PACKAGE, raising=False)

    ort_rtx._register.cache_clear()
    yield made
    ort_rtx._register.cache_clear()
    sys.modules.pop(PACKAGE, None)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", (0.3,))


@pytest.fixture
def registered(package: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if ONNX Runtime had taken the plugin: the names it was given."""
    names: list[str] = []
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda name, path: names.append(name))
    package()
    return names


def test_without_the_package_nothing_is_asked_in_another_process(
    bundle: Bundle, package: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    monkeypatch.setattr(stage, "run_isolated", lambda *given: pytest.fail("another process"))
    with pytest.raises(
        BackendError, match=f"cannot load the plugin of TensorRT-RTX: import of {PACKAGE} halted"
    ) as told:
        stage.compare_speed([bundle.path, bundle.path], stage.CompareRequest(backend="ort-rtx"))
    assert "doctor" in told.value.fix


@pytest.mark.parametrize("broken", ["libplugin.so", "libcudart.so.13.4.36"])
def test_what_cannot_be_loaded_is_named(bundle: Bundle, package: Callable[..., None], broken: str) -> None:
    package("libplugin.so", broken)
    assert ort_rtx.plugin_is_installed()
    with pytest.raises(
        BackendError, match=r"^ort-rtx cannot run here: onnxruntime .* cannot load the plugin of TensorRT-RTX: "
    ) as told:
        open_predictor(bundle, "ort-rtx", 0.3)
    assert broken in told.value.what
    assert ".." not in told.value.what


def test_a_gpu_that_it_does_not_know_is_told_and_the_plugin_is_registered_once(registered: list[str]) -> None:
    for _ in range(2):
        assert unavailable_reason("ort-rtx") == (
            "NvTensorRTRTXExecutionProvider finds no GPU that it knows: sm_86, sm_89, or sm_120 and newer"
        )
    assert registered == ["NvTensorRTRTXExecutionProvider"]


@pytest.mark.parametrize("before", [None, "1"])
@pytest.mark.usefixtures("registered")
def test_engines_are_built_on_its_first_gpu_alone_and_without_tf32(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if before is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", before)
    names = ("CPUExecutionProvider", ort_rtx.PROVIDER, ort_rtx.PROVIDER)
    devices = [SimpleNamespace(ep_name=name, index=index) for index, name in enumerate(names)]
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: devices)
    asked: list[object] = []
    monkeypatch.setattr(
        onnxruntime.SessionOptions, "add_provider_for_devices", lambda _, devices, options: asked.append(devices)
    )

    def session(model: bytes, options: onnxruntime.SessionOptions, **more: object) -> SimpleNamespace:
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert more == {"enable_fallback": 0}
        return SimpleNamespace(get_providers=lambda: [ort_rtx.PROVIDER])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    open_session(bundle.read(bundle.manifest.graphs[0].file), bundle, "ort-rtx", DEFAULT_HOST)
    assert asked == [[devices[1]]]
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == before
