"""A GPU that is none: see ``tests/fixtures/fake_gpu``."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FAKE_GPU = Path(__file__).parents[2] / "fixtures" / "fake_gpu"
_MODULES = ("tensorrt", "pycuda", "pycuda.driver")


@pytest.fixture
def fake_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in of ``pycuda.driver``, and of ``tensorrt`` for who imports it. A test must free all it allocates."""
    for name in _MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(FAKE_GPU))
    driver = importlib.import_module("pycuda.driver")
    yield driver
    assert driver.live == {}
    assert driver.pinned == {}
    assert driver.contexts == []
    for name in _MODULES:
        sys.modules.pop(name, None)
