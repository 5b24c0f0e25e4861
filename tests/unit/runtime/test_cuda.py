import importlib
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from floats_edge.errors import BackendError
from floats_edge.runtime.cuda import cuda_unavailable_reason, open_cuda


class FakeRuntime:
    """``cuda.bindings.runtime`` on top of the stand-in of pycuda: every function returns its error first."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self, driver):
        self.driver = driver

    def cudaGetErrorName(self, error):  # noqa: N802
        return 0, b"cudaErrorMemoryAllocation" if error == 2 else b"cudaErrorNoDevice"

    def cudaGetErrorString(self, error):  # noqa: N802
        return 0, b"out of memory" if error == 2 else b"no CUDA-capable device is detected"

    def cudaGetDeviceProperties(self, device):  # noqa: N802
        try:
            self.driver.init()
        except self.driver.Error:
            return 100, None
        return 0, SimpleNamespace(name=b"Orin", major=8, minor=7)

    def cudaSetDevice(self, device):  # noqa: N802
        return (0,)

    def cudaStreamCreate(self):  # noqa: N802
        self.stream = self.driver.Stream()
        return 0, self.stream.handle

    def cudaStreamDestroy(self, stream):  # noqa: N802
        del self.driver.queues[stream]
        return (0,)

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        self.stream.synchronize()
        return (0,)

    def cudaMalloc(self, size):  # noqa: N802
        try:
            return 0, int(self.driver.mem_alloc(size))
        except self.driver.Error:
            return 2, None

    def cudaFree(self, pointer):  # noqa: N802
        self.driver.live[pointer].free()
        return (0,)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):  # noqa: N802
        def copy():
            device, host = (to, source) if kind == 1 else (source, to)
            host_bytes = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * size).from_address(host))
            device_bytes = self.driver.device(device, size)
            np.copyto(*((device_bytes, host_bytes) if kind == 1 else (host_bytes, device_bytes)))

        self.driver.queues[stream].append(copy)
        return (0,)

    def cudaEventCreate(self):  # noqa: N802
        return 0, self.driver.Event()

    def cudaEventRecord(self, event, stream):  # noqa: N802
        event.record(self.stream)
        return (0,)

    def cudaEventSynchronize(self, event):  # noqa: N802
        event.synchronize()
        return (0,)

    def cudaEventElapsedTime(self, start, end):  # noqa: N802
        return 0, start.time_till(end)

    def cudaEventDestroy(self, event):  # noqa: N802
        return (0,)

    def cudaMemGetInfo(self):  # noqa: N802
        return 0, *self.driver.mem_get_info()


@pytest.fixture(params=["pycuda", "cuda-python"])
def binding(request, fake_driver, monkeypatch):
    """Stand-ins of one binding; the other is not installed."""
    if request.param == "pycuda":
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    else:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
        monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    return fake_driver


def test_the_device_is_described(binding):
    with open_cuda() as cuda:
        assert (cuda.name, cuda.compute_capability, cuda.target) == ("Orin", (8, 7), "sm_87")
        assert cuda.memory_info() == (3 * 2**30, 8 * 2**30)
        assert cuda.stream in binding.queues


def test_what_is_copied_to_the_device_comes_back(binding):
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    back = np.zeros((5, 4), dtype=np.float16)
    with open_cuda() as cuda:
        pointer = cuda.allocate(array.nbytes)
        cuda.to_device(pointer, array)
        rows = back[1:4]
        cuda.to_host(rows, pointer)
        cuda.synchronize()
    assert np.array_equal(back[1:4], array)
    assert not back[[0, 4]].any()


def test_events_time_what_is_in_the_stream_and_not_how_it_came_there(binding):
    with open_cuda() as cuda:

        def queue():
            time.sleep(0.05)
            binding.queues[cuda.stream].append(lambda: time.sleep(0.01))

        assert 10 <= cuda.time_ms(queue) < 40


def test_closing_frees_everything_once(binding):
    cuda = open_cuda()
    cuda.allocate(16)
    cuda.allocate(32)
    assert len(binding.live) == 2
    cuda.close()
    assert binding.live == {}
    cuda.close()


def test_an_error_tells_its_cause(binding):
    with open_cuda() as cuda, pytest.raises(BackendError, match="out of memory") as caught:
        cuda.allocate(2**40)
    assert "smaller batch" in caught.value.fix


def test_no_device(binding, monkeypatch):
    assert cuda_unavailable_reason() is None
    monkeypatch.setenv("FAKE_CUDA", "no device")
    assert "no CUDA-capable device is detected" in (cuda_unavailable_reason() or "")
    with pytest.raises(BackendError) as caught:
        open_cuda()
    assert "--gpus all" in caught.value.fix


def test_no_binding(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(BackendError, match="no CUDA binding") as caught:
        open_cuda()
    assert "floats-edge[gpu]" in caught.value.fix
    assert "floats-edge[jetson]" in caught.value.fix


def test_the_real_binding_has_the_functions_that_are_used():
    runtime = importlib.import_module("cuda.bindings.runtime")
    for name in (name for name in vars(FakeRuntime) if name.startswith("cuda")):
        assert hasattr(runtime, name), name
    assert runtime.cudaMemcpyKind.cudaMemcpyHostToDevice == 1
    assert runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost == 2
