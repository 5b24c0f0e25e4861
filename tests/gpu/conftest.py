"""Real engines on a real GPU; what needs them is skipped, saying why, where there is none."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.tiny_bundle import build_engines, write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Mode, Precision
from floats_edge.deploy.engine_request import EngineOptions
from floats_edge.runtime.tensorrt_library import preferred_tensorrt
from floats_edge.runtime.trt import trt_unavailable_reason

OPTIONS = EngineOptions(batch=(1, 4, 8))
LAMBDAS = {"fixed": (0.3,), "bank": (0.0, 0.5, 1.0)}


@pytest.fixture(scope="session")
def gpu() -> None:
    reason = trt_unavailable_reason()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def full_tensorrt(gpu: None) -> None:
    flavour, _ = preferred_tensorrt()
    if flavour != "tensorrt":
        pytest.skip("TensorRT-RTX has no such thing: this is about the full TensorRT")


@pytest.fixture
def build(gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bundle]:
    """``build(mode, precision, options)``: a bundle with engines built now; caches go to a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def made(mode: Mode, precision: Precision, options: EngineOptions = OPTIONS) -> Bundle:
        return build_engines(write_bundle(tmp_path / "bundle", LAMBDAS.get(mode), precision, mode), options)

    return made


class _Bundles(dict[tuple[Mode, Precision], Bundle]):
    """Bundles with engines built here, by mode and precision, each when it is first asked for."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        super().__init__()
        self._folders = folders

    def __missing__(self, key: tuple[Mode, Precision]) -> Bundle:
        mode, precision = key
        folder = self._folders.mktemp(f"{mode}-{precision}")
        self[key] = build_engines(write_bundle(folder, LAMBDAS.get(mode), precision, mode), OPTIONS)
        return self[key]


@pytest.fixture(scope="session")
def bundles(gpu: None, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Mode, Precision], Bundle]:
    """Bundles with engines built here, by mode and precision."""
    return _Bundles(tmp_path_factory)
