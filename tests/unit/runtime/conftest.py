"""Fixtures that the tests of what runs on a GPU share."""

import sys

import pytest
from fixtures.fake_cuda_runtime import FakeRuntime


@pytest.fixture(params=["pycuda", "cuda-python"])
def binding(request, fake_driver, monkeypatch):
    """Stand-ins of one binding; the other is not installed."""
    if request.param == "pycuda":
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    else:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
        monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    return fake_driver
