import importlib
import sys
import time
from typing import Any

import numpy as np
import pytest
from fixtures.fake_cuda_runtime import FakeRuntime

from floats_edge.errors import BackendError
from floats_edge.runtime.cuda import cuda_unavailable_reason, open_cuda


def test_the_device_is_described(binding):
    with open_cuda() as cuda:
        assert (cuda.name, cuda.compute_capability, cuda.target) == ("Orin", (8, 7), "sm_87")
        assert cuda.memory_info() == (3 * 2**30, 8 * 2**30)
        assert cuda.stream.handle in binding.queues


@pytest.mark.parametrize("driver", ["none", "an old one"])
def test_no_driver_is_not_called_an_old_one(driver, fake_driver, monkeypatch):
    def load(name: str) -> None:
        if driver == "none":
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", load)
    monkeypatch.setattr(FakeRuntime, "cudaGetDevice", lambda self: (35, None))
    monkeypatch.setattr(FakeRuntime, "cudaGetErrorName", lambda self, error: (0, b"cudaErrorInsufficientDriver"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    reason = cuda_unavailable_reason()
    assert reason is not None
    assert reason.startswith("there is no NVIDIA driver: libcuda.so.1:") == (driver == "none")


def test_what_is_copied_to_the_device_comes_back(binding):
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    back = np.zeros((5, 4), dtype=np.float16)
    with open_cuda() as cuda:
        pointer = cuda.allocate(array.nbytes)
        cuda.stream.to_device(pointer, array)
        rows = back[1:4]
        cuda.stream.to_host(rows, pointer)
        cuda.stream.synchronize()
    assert np.array_equal(back[1:4], array)
    assert not back[[0, 4]].any()


def test_events_time_what_is_in_the_stream_and_not_how_it_came_there(binding):
    with open_cuda() as cuda:

        def queue():
            time.sleep(0.05)
            binding.queues[cuda.stream.handle].append(lambda: time.sleep(0.01))

        assert 10 <= cuda.stream.time_ms(queue) < 40


def test_closing_frees_everything_once(binding):
    cuda = open_cuda()
    cuda.allocate(16)
    cuda.allocate(32)
    assert len(binding.live) == 2
    cuda.close()
    assert binding.live == {}
    cuda.close()


def test_closing_waits_for_what_uses_the_memory(binding):
    cuda, found = open_cuda(), []
    cuda.allocate(16)
    cuda.pinned((4,), np.float32)
    for stream in (cuda.stream, cuda.new_stream()):
        binding.queues[stream.handle].append(lambda: found.append((len(binding.live), len(binding.pinned))))
    cuda.close()
    assert found == [(1, 1), (1, 1)]


def test_closing_frees_everything_even_if_the_stream_fails(binding, monkeypatch):
    cuda = open_cuda()
    cuda.allocate(16)
    cuda.pinned((4,), np.float32)

    def fails(_):
        raise BackendError("the device is lost.", fix="run it again")

    monkeypatch.setattr(binding.Stream, "synchronize", fails)
    with pytest.raises(BackendError, match="lost"):
        cuda.close()
    assert (binding.live, binding.pinned) == ({}, {})
    cuda.close()


@pytest.mark.parametrize("binding", ["cuda-python"], indirect=True)
def test_the_device_of_the_caller_is_current_again_afterwards(binding):
    runtime: Any = sys.modules["cuda.bindings.runtime"]
    runtime.device = 2
    with open_cuda():
        assert runtime.device == 0
    assert runtime.device == 2


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
    assert ".[gpu]" in caught.value.fix
    assert ".[jetson]" in caught.value.fix


def test_the_real_binding_has_the_functions_that_are_used():
    runtime = importlib.import_module("cuda.bindings.runtime")
    for name in (name for name in vars(FakeRuntime) if name.startswith("cuda")):
        assert hasattr(runtime, name), name
    assert runtime.cudaMemcpyKind.cudaMemcpyHostToDevice == 1
    assert runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost == 2
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert runtime.cudaStreamNonBlocking == 1
    assert runtime.cudaEventDisableTiming == 2
    assert "numNodes" in runtime.cudaGraphGetNodes.__doc__.splitlines()[0]


# Streams beside each other


def test_a_stream_and_the_host_wait_for_a_place_in_another_stream(binding):
    done = []
    with open_cuda() as cuda:
        other, event = cuda.new_stream(), cuda.new_event()
        for wait in (cuda.wait, cuda.stream.wait):
            wait(event)  # it marks no place: nobody waits
        binding.queues[other.handle].append(lambda: done.append("before"))
        other.mark(event)
        binding.queues[other.handle].append(lambda: done.append("behind"))
        cuda.stream.wait(event)
        binding.queues[cuda.stream.handle].append(lambda: done.append("held"))
        cuda.wait(event)
        assert done == ["before"]
        cuda.stream.synchronize()
        assert done == ["before", "held"]
    assert done == ["before", "held", "behind"]


def test_an_event_marks_one_place_at_a_time_and_who_waits_waits_for_what_it_marked_then(binding):
    done = []
    with open_cuda() as cuda:
        other, event = cuda.new_stream(), cuda.new_event()
        other.mark(event)
        cuda.stream.wait(event)
        binding.queues[cuda.stream.handle].append(lambda: done.append("held"))
        binding.queues[other.handle].append(lambda: done.append("behind"))
        other.mark(event)
        cuda.stream.synchronize()
        assert done == ["held"]
        cuda.wait(event)
        assert done == ["held", "behind"]


@pytest.mark.parametrize("binding", ["cuda-python"], indirect=True)
def test_what_a_graph_would_have_to_wait_for_cannot_be_recorded(binding):
    with open_cuda() as cuda:
        event = cuda.new_event()
        with pytest.raises(BackendError, match="not permitted when stream is capturing"):
            cuda.stream.record(lambda: cuda.stream.wait(event))


@pytest.mark.parametrize("binding", ["cuda-python"], indirect=True)
def test_closing_destroys_streams_and_events(binding):
    runtime = sys.modules["cuda.bindings.runtime"]
    with open_cuda() as cuda:
        cuda.new_stream(), cuda.new_event(), cuda.new_event()
        assert (len(runtime.streams), len(runtime.events)) == (2, 2)
    assert (runtime.streams, runtime.events) == ({}, set())


# Page-locked memory and graphs


def test_page_locked_memory_is_copied_from_and_to_and_freed_at_the_end(binding):
    with open_cuda() as cuda:
        sent, back = cuda.pinned((4, 3), np.float32), cuda.pinned((4, 3), np.float32)
        assert len(binding.pinned) == 2
        assert (cuda.page_locked, cuda.allocated) == (96, 0)
        sent[:] = np.arange(12).reshape(4, 3)
        pointer = cuda.allocate(48)
        cuda.stream.to_device(pointer, sent[:2])
        cuda.stream.to_host(back[:2], pointer)
        cuda.stream.synchronize()
        assert np.array_equal(back[:2], [[0, 1, 2], [3, 4, 5]])
        assert cuda.allocated == 48
    assert binding.pinned == {}


@pytest.mark.parametrize("binding", ["cuda-python"], indirect=True)
def test_a_graph_runs_nothing_when_recorded_and_all_of_it_when_launched(binding):
    done = []
    with open_cuda() as cuda:
        binding.queues[cuda.stream.handle].append(lambda: done.append("before"))
        graph = cuda.stream.record(
            lambda: binding.queues[cuda.stream.handle].extend([lambda: done.append(1), lambda: done.append(2)])
        )
        cuda.stream.synchronize()
        assert done == ["before"]
        for _ in range(2):
            graph.launch()
        cuda.stream.synchronize()
        assert done == ["before", 1, 2, 1, 2]
        graph.close()
        graph.close()
    runtime = sys.modules["cuda.bindings.runtime"]
    assert runtime.executables == {}
    assert not any(runtime.graphs.values())


@pytest.mark.parametrize("binding", ["cuda-python"], indirect=True)
def test_a_graph_of_nothing_is_refused(binding):
    """The work went elsewhere, and would not be there when the graph is launched."""
    with open_cuda() as cuda, pytest.raises(BackendError, match="CUDA captured no work"):
        cuda.stream.record(lambda: None)
    assert not any(sys.modules["cuda.bindings.runtime"].graphs.values())


@pytest.mark.parametrize("binding", ["cuda-python"], indirect=True)
def test_work_that_cannot_be_captured_leaves_the_stream_usable(binding):
    with open_cuda() as cuda:
        with pytest.raises(BackendError, match="not permitted when stream is capturing"):
            cuda.stream.record(cuda.stream.synchronize)
        cuda.stream.synchronize()


@pytest.mark.parametrize("binding", ["pycuda"], indirect=True)
def test_pycuda_says_that_it_has_no_graphs(binding):
    with open_cuda(graphs=True) as cuda:
        assert not cuda.has_graphs
        for use in (cuda.check_graphs, lambda: cuda.stream.record(lambda: None)):
            with pytest.raises(BackendError, match="pycuda has no CUDA graphs") as caught:
                use()
            assert "cuda-python" in caught.value.fix


def test_of_two_bindings_the_one_that_has_graphs_is_taken_for_them(fake_driver, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
    with open_cuda() as first, open_cuda(graphs=True) as graphs:
        assert (first.has_graphs, graphs.has_graphs) == (False, True)
        graphs.check_graphs()


def test_the_stream_does_not_wait_for_the_default_stream(binding):
    with open_cuda() as cuda:
        assert cuda.stream.handle in binding.non_blocking
