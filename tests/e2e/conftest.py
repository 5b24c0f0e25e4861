"""Fixtures of the tests of the whole pipeline."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from floats_edge.artifacts.bundle import Bundle
    from floats_edge.artifacts.checkpoint import TrainingRun


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real TensorRT-RTX, in child processes too, even where the full TensorRT is installed."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "tensorrt.py").write_text("raise ImportError('hidden by the test')")
    monkeypatch.setenv("PYTHONPATH", str(blocked))


@pytest.fixture
def run(digits_run: "TrainingRun", tmp_path: Path) -> Path:
    """A copy of a run, to be damaged."""
    return Path(shutil.copytree(digits_run.path, tmp_path / "run"))


@pytest.fixture
def bundle(bundles: "Callable[..., Bundle]", tmp_path: Path) -> Path:
    """A copy of a bundle in mode ``bound``, to be damaged."""
    return Path(shutil.copytree(bundles("bound").path, tmp_path / "bundle"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a command may write."""
    return tmp_path / "out"
