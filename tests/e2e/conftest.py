"""Fixtures of the tests of the whole pipeline."""

from pathlib import Path

import pytest


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real TensorRT-RTX, in child processes too, even where the full TensorRT is installed."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "tensorrt.py").write_text("raise ImportError('hidden by the test')")
    monkeypatch.setenv("PYTHONPATH", str(blocked))
