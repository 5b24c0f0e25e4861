"""CUDA from Python: one device, its primary context, streams. The only file that imports a CUDA binding.

The binding is pycuda where it is installed and otherwise cuda-python (``cuda.bindings``); for CUDA graphs, which pycuda
does not have, it is the other way round. Both work in the device's *primary* context, the one that TensorRT, cuDNN and
PyTorch share, so pointers may be handed to any of them. Their streams do not wait for the legacy default stream, nor it
for them.
"""

import ctypes
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from floats_edge.errors import BackendError, add_extra
from floats_edge.runtime.cuda_device import Cuda, Event, Graph, Stream, no_graphs

_NO_BINDING = f"{add_extra('gpu')}, or on a Jetson: {add_extra('jetson')}"
_NO_DEVICE = (
    "check the driver with nvidia-smi (Jetson: tegrastats); in a container start it with --gpus all; "
    "a cuda-python newer than the driver needs to be replaced: pip install 'cuda-python<13' for CUDA 12 (JetPack 6)"
)
_NO_DRIVER = "install NVIDIA's driver (a Jetson has it); in a container start it with --gpus all"
_NOT_CAPTURED = "leave --cuda-graph out: this engine's work cannot be captured"
_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, cudaStreamNonBlocking: pycuda has no name for it."""
_NO_TIMING = 2
"""CU_EVENT_DISABLE_TIMING, cudaEventDisableTiming: such events cost the least to wait for."""
_IN_USE = "if memory ran out, close other programs on this GPU or use a smaller batch; otherwise run it again"


def open_cuda(graphs: bool = False) -> Cuda:
    """Open the first visible device.

    Args:
        graphs: whether work is to be recorded: of two bindings the one that can is taken.

    Raises:
        BackendError: no binding, no driver or no device; says which.
    """
    first, second = (_CudaPython, _PyCuda) if graphs else (_PyCuda, _CudaPython)
    try:
        return first()
    except ImportError as no_first:
        try:
            return second()
        except ImportError as no_second:
            raise BackendError(f"there is no CUDA binding: {no_first}; {no_second}.", fix=_NO_BINDING) from None


def cuda_unavailable_reason() -> str | None:
    """Why CUDA cannot be used here, or None if it can."""
    try:
        open_cuda().close()
    except BackendError as error:
        return error.what.rstrip(".")
    return None


def _no_driver() -> str | None:
    """Why the driver cannot be loaded; None if it can. CUDA's runtime calls it insufficient in either case."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return str(error)
    return None


class _PyCuda(Cuda):
    has_graphs = False

    def __init__(self) -> None:
        super().__init__()
        self._driver = driver = importlib.import_module("pycuda.driver")
        self._streams: list[_PyCudaStream] = []
        with self._errors(_NO_DEVICE):
            driver.init()
            device = driver.Device(0)
            self.name = device.name()
            self.compute_capability = device.compute_capability()
            self._context: Any = device.retain_primary_context()
            self._context.push()
        self.stream = self.new_stream()

    @contextmanager
    def _errors(self, fix: str = _IN_USE) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise BackendError(f"CUDA: {error}.", fix=fix) from None

    def allocate(self, size: int) -> int:
        with self._errors():
            allocation = self._driver.mem_alloc(size)
        self._frees.append(allocation.free)
        self.allocated += size
        return int(allocation)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        with self._errors():
            array = self._driver.pagelocked_empty(shape, dtype)
        self._frees.append(array.base.free)
        self.page_locked += array.nbytes
        return array

    def new_stream(self) -> Stream:
        with self._errors():
            self._streams.append(_PyCudaStream(self))
        return self._streams[-1]

    def new_event(self) -> Event:
        with self._errors():
            return self._driver.Event(_NO_TIMING)

    def wait(self, event: Event) -> None:
        with self._errors():
            event.synchronize()

    def memory_info(self) -> tuple[int, int]:
        with self._errors():
            return self._driver.mem_get_info()

    def close(self) -> None:
        if self._context is None:
            return
        with self._errors(), ExitStack() as closing:  # backwards, and to the end whatever fails on the way
            closing.callback(self._let_go)
            while self._frees:
                closing.callback(self._frees.pop())
            for stream in self._streams:
                closing.callback(stream.synchronize)

    def _let_go(self) -> None:
        while self._streams:
            del self._streams.pop().raw
        self._context.pop()
        self._context = None


class _PyCudaStream(Stream):
    def __init__(self, cuda: _PyCuda) -> None:
        self._driver, self._errors = cuda._driver, cuda._errors
        self.raw = self._driver.Stream(_NON_BLOCKING)
        self.handle = self.raw.handle

    def to_device(self, pointer: int, array: NDArray[Any]) -> None:
        with self._errors():
            self._driver.memcpy_htod_async(pointer, array, self.raw)

    def to_host(self, array: NDArray[Any], pointer: int) -> None:
        with self._errors():
            self._driver.memcpy_dtoh_async(array, pointer, self.raw)

    def synchronize(self) -> None:
        with self._errors():
            self.raw.synchronize()

    def mark(self, event: Event) -> None:
        with self._errors():
            event.record(self.raw)

    def wait(self, event: Event) -> None:
        with self._errors():
            self.raw.wait_for_event(event)

    def time_ms(self, queue: Callable[[], object]) -> float:
        with self._errors():
            start, end = self._driver.Event(), self._driver.Event()
            start.record(self.raw)
            queue()
            end.record(self.raw)
            end.synchronize()
            return start.time_till(end)

    def record(self, queue: Callable[[], object]) -> Graph:
        raise no_graphs()


class _CudaPython(Cuda):
    has_graphs = True

    def __init__(self) -> None:
        super().__init__()
        self._runtime = runtime = importlib.import_module("cuda.bindings.runtime")
        self._streams: list[_CudaPythonStream] = []
        self._events: list[Event] = []
        self._device_before = self._call(runtime.cudaGetDevice, fix=_NO_DEVICE)
        properties = self._call(runtime.cudaGetDeviceProperties, 0, fix=_NO_DEVICE)
        self.name = properties.name.decode()
        self.compute_capability = (properties.major, properties.minor)
        self._call(runtime.cudaSetDevice, 0, fix=_NO_DEVICE)
        self.stream = self.new_stream()

    def _call(self, function: Callable[..., tuple[Any, ...]], *arguments: Any, fix: str = _IN_USE) -> Any:
        """Result of a runtime function: one value, or a tuple of several or none.

        Raises:
            BackendError: with the name and the text of the CUDA error.
        """
        error, *values = function(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            name, text = (
                of(error)[1].decode() for of in (self._runtime.cudaGetErrorName, self._runtime.cudaGetErrorString)
            )
            if name == "cudaErrorInsufficientDriver" and (lack := _no_driver()):
                raise BackendError(f"there is no NVIDIA driver: {lack}.", fix=_NO_DRIVER)
            raise BackendError(f"CUDA: {function.__name__} failed with {name}: {text}.", fix=fix)
        return values[0] if len(values) == 1 else tuple(values)

    def allocate(self, size: int) -> int:
        pointer = self._call(self._runtime.cudaMalloc, size)
        self._frees.append(partial(self._call, self._runtime.cudaFree, pointer))
        self.allocated += size
        return pointer

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        pointer = self._call(self._runtime.cudaMallocHost, size)
        self._frees.append(partial(self._call, self._runtime.cudaFreeHost, pointer))
        self.page_locked += size
        memory = (ctypes.c_uint8 * size).from_address(pointer)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def new_stream(self) -> Stream:
        self._streams.append(_CudaPythonStream(self))
        return self._streams[-1]

    def new_event(self) -> Event:
        self._events.append(self._call(self._runtime.cudaEventCreateWithFlags, _NO_TIMING))
        return self._events[-1]

    def wait(self, event: Event) -> None:
        self._call(self._runtime.cudaEventSynchronize, event)

    def memory_info(self) -> tuple[int, int]:
        return self._call(self._runtime.cudaMemGetInfo)

    def close(self) -> None:
        if not self._streams:
            return
        streams, self._streams = self._streams, []
        with ExitStack() as closing:  # backwards, and to the end whatever fails on the way
            closing.callback(self._call, self._runtime.cudaSetDevice, self._device_before)
            for stream in streams:
                closing.callback(self._call, self._runtime.cudaStreamDestroy, stream.raw)
            while self._events:
                closing.callback(self._call, self._runtime.cudaEventDestroy, self._events.pop())
            while self._frees:
                closing.callback(self._frees.pop())
            for stream in streams:
                closing.callback(stream.synchronize)


class _CudaPythonStream(Stream):
    def __init__(self, cuda: _CudaPython) -> None:
        self._runtime, self._call = cuda._runtime, cuda._call
        self.raw = self._call(self._runtime.cudaStreamCreateWithFlags, _NON_BLOCKING)
        self.handle = int(self.raw)

    def to_device(self, pointer: int, array: NDArray[Any]) -> None:
        self._copy(pointer, array.ctypes.data, array, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def to_host(self, array: NDArray[Any], pointer: int) -> None:
        self._copy(array.ctypes.data, pointer, array, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, to: int, source: int, array: NDArray[Any], kind: Any) -> None:
        assert array.flags.c_contiguous, "the bytes of the array lie in one piece"
        self._call(self._runtime.cudaMemcpyAsync, to, source, array.nbytes, kind, self.raw)

    def synchronize(self) -> None:
        self._call(self._runtime.cudaStreamSynchronize, self.raw)

    def mark(self, event: Event) -> None:
        self._call(self._runtime.cudaEventRecord, event, self.raw)

    def wait(self, event: Event) -> None:
        self._call(self._runtime.cudaStreamWaitEvent, self.raw, event, 0)

    def time_ms(self, queue: Callable[[], object]) -> float:
        start, end = (self._call(self._runtime.cudaEventCreate) for _ in range(2))
        self.mark(start)
        queue()
        self.mark(end)
        self._call(self._runtime.cudaEventSynchronize, end)
        elapsed = self._call(self._runtime.cudaEventElapsedTime, start, end)
        for event in (start, end):
            self._call(self._runtime.cudaEventDestroy, event)
        return elapsed

    def record(self, queue: Callable[[], object]) -> Graph:
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads go on as they like
        self._call(runtime.cudaStreamBeginCapture, self.raw, mode, fix=_NOT_CAPTURED)
        try:
            queue()
        except BaseException:
            runtime.cudaStreamEndCapture(self.raw)  # a capture left open would swallow all that follows
            raise
        graph = self._call(runtime.cudaStreamEndCapture, self.raw, fix=_NOT_CAPTURED)
        try:
            _, nodes = self._call(runtime.cudaGraphGetNodes, graph)
            if not nodes:
                raise BackendError("CUDA captured no work: it went into another stream.", fix=_NOT_CAPTURED)
            executable = self._call(runtime.cudaGraphInstantiate, graph, 0, fix=_NOT_CAPTURED)
        finally:
            self._call(runtime.cudaGraphDestroy, graph)
        return _CudaPythonGraph(self, executable)


class _CudaPythonGraph(Graph):
    def __init__(self, stream: _CudaPythonStream, executable: Any) -> None:
        self._stream = stream
        self._executable = executable

    def launch(self) -> None:
        self._stream._call(self._stream._runtime.cudaGraphLaunch, self._executable, self._stream.raw)

    def close(self) -> None:
        if self._executable is not None:
            self._stream._call(self._stream._runtime.cudaGraphExecDestroy, self._executable)
            self._executable = None
