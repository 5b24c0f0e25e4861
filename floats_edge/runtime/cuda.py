"""CUDA from Python: one device, its primary context, one stream. The only file that imports a CUDA binding.

The binding is pycuda where it is installed and otherwise cuda-python (``cuda.bindings``); for CUDA graphs, which pycuda
does not have, it is the other way round. Both work in the device's *primary* context, the one that TensorRT, cuDNN and
PyTorch share, so pointers may be handed to any of them. Their streams do not wait for the legacy default stream, nor it
for them.
"""

import ctypes
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self

from floats_edge.errors import BackendError

_NO_BINDING = "pip install 'floats-edge[gpu]', or on a Jetson: pip install 'floats-edge[jetson]'"
_NO_DEVICE = (
    "check the driver with nvidia-smi (Jetson: tegrastats); in a container start it with --gpus all; "
    "a cuda-python newer than the driver needs to be replaced: pip install 'cuda-python<13' for CUDA 12 (JetPack 6)"
)
_NO_GRAPHS = "pip install 'floats-edge[gpu]' (JetPack 6: and 'cuda-python<13'), or leave --cuda-graph out"
_NOT_CAPTURED = "leave --cuda-graph out: this engine's work cannot be captured"
_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, cudaStreamNonBlocking: pycuda has no name for it."""
_IN_USE = "if memory ran out, close other programs on this GPU or use a smaller batch; otherwise run it again"


class Cuda(ABC):
    """The first visible device. Belongs to the thread that opened it; use as a context manager.

    It is the thread's current device until :meth:`close`, which makes the one before it current again.

    Copies of ordinary host arrays work too, but the driver stages them on the way: what is copied often belongs into
    :meth:`pinned` memory.

    Attributes:
        name: of the device, for example ``Orin``.
        compute_capability: major and minor, for example ``(8, 7)``.
        stream: handle of the stream that all copies go through, as TensorRT takes it.
        has_graphs: whether the binding can :meth:`record`.
        allocated: bytes of device memory from :meth:`allocate`.
        page_locked: bytes of host memory from :meth:`pinned`.
    """

    name: str
    compute_capability: tuple[int, int]
    stream: int
    has_graphs: bool
    allocated: int = 0
    page_locked: int = 0

    @property
    def target(self) -> str:
        """The compute capability by name, for example ``sm_87``."""
        major, minor = self.compute_capability
        return f"sm_{major}{minor}"

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Pointer to ``size`` bytes of device memory, uninitialised, which live until :meth:`close`.

        Raises:
            BackendError: out of memory; every method may raise it with the error of an earlier asynchronous call.
        """

    @abstractmethod
    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A page-locked host array, uninitialised; neither it nor a view of it may be used after :meth:`close`.

        Raises:
            BackendError: out of memory.
        """

    @abstractmethod
    def to_device(self, pointer: int, array: NDArray[Any]) -> None:
        """Queue a copy of a C-contiguous array to ``pointer``; the array must live until :meth:`synchronize`."""

    @abstractmethod
    def to_host(self, array: NDArray[Any], pointer: int) -> None:
        """Queue a copy from ``pointer`` that fills a C-contiguous array; it is filled after :meth:`synchronize`."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream is empty."""

    @abstractmethod
    def time_ms(self, queue: Callable[[], object]) -> float:
        """Time in ms that the device spends on what ``queue`` puts into the stream: between two CUDA events."""

    @abstractmethod
    def record(self, queue: Callable[[], object]) -> "Graph":
        """Record what ``queue`` puts into the stream as a CUDA graph; nothing of it runs now.

        Raises:
            BackendError: it puts nothing there, or what cannot be captured, or the binding has no graphs.
        """

    def check_graphs(self) -> None:
        """Check before anything is loaded that work can be recorded.

        Raises:
            BackendError: the binding has no graphs.
        """
        if not self.has_graphs:
            raise _no_graphs()

    @abstractmethod
    def memory_info(self) -> tuple[int, int]:
        """Free and total device memory, in bytes."""

    @abstractmethod
    def close(self) -> None:
        """Wait until the stream is empty, free all memory and let go of the context."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Graph(ABC):
    """Recorded work with fixed addresses and shapes; close it before its :class:`Cuda`."""

    @abstractmethod
    def launch(self) -> None:
        """Put all of it into the stream, at the cost of one launch."""

    @abstractmethod
    def close(self) -> None:
        """Free it, after its last launch has ended."""


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


def _no_graphs() -> BackendError:
    return BackendError("pycuda has no CUDA graphs, and cuda-python is not installed.", fix=_NO_GRAPHS)


class _PyCuda(Cuda):
    has_graphs = False

    def __init__(self) -> None:
        self._driver = driver = importlib.import_module("pycuda.driver")
        self._allocations: list[Any] = []  # on the device and, page-locked, on the host
        with self._errors(_NO_DEVICE):
            driver.init()
            device = driver.Device(0)
            self.name = device.name()
            self.compute_capability = device.compute_capability()
            self._context: Any = device.retain_primary_context()
            self._context.push()
            self._stream = driver.Stream(_NON_BLOCKING)
            self.stream = self._stream.handle

    @contextmanager
    def _errors(self, fix: str = _IN_USE) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise BackendError(f"CUDA: {error}.", fix=fix) from None

    def allocate(self, size: int) -> int:
        with self._errors():
            self._allocations.append(self._driver.mem_alloc(size))
        self.allocated += size
        return int(self._allocations[-1])

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        with self._errors():
            array = self._driver.pagelocked_empty(shape, dtype)
        self._allocations.append(array.base)
        self.page_locked += array.nbytes
        return array

    def to_device(self, pointer: int, array: NDArray[Any]) -> None:
        with self._errors():
            self._driver.memcpy_htod_async(pointer, array, self._stream)

    def to_host(self, array: NDArray[Any], pointer: int) -> None:
        with self._errors():
            self._driver.memcpy_dtoh_async(array, pointer, self._stream)

    def synchronize(self) -> None:
        with self._errors():
            self._stream.synchronize()

    def time_ms(self, queue: Callable[[], object]) -> float:
        with self._errors():
            start, end = self._driver.Event(), self._driver.Event()
            start.record(self._stream)
            queue()
            end.record(self._stream)
            end.synchronize()
            return start.time_till(end)

    def record(self, queue: Callable[[], object]) -> Graph:
        raise _no_graphs()

    def memory_info(self) -> tuple[int, int]:
        with self._errors():
            return self._driver.mem_get_info()

    def close(self) -> None:
        if self._context is None:
            return
        with self._errors(), ExitStack() as closing:  # backwards, and to the end whatever fails on the way
            closing.callback(self._let_go)
            while self._allocations:
                closing.callback(self._allocations.pop().free)
            closing.callback(self._stream.synchronize)

    def _let_go(self) -> None:
        del self._stream
        self._context.pop()
        self._context = None


class _CudaPython(Cuda):
    has_graphs = True

    def __init__(self) -> None:
        self._runtime = runtime = importlib.import_module("cuda.bindings.runtime")
        self._allocations: list[int] = []
        self._page_locked: list[int] = []
        self._device_before = self._call(runtime.cudaGetDevice, fix=_NO_DEVICE)
        properties = self._call(runtime.cudaGetDeviceProperties, 0, fix=_NO_DEVICE)
        self.name = properties.name.decode()
        self.compute_capability = (properties.major, properties.minor)
        self._call(runtime.cudaSetDevice, 0, fix=_NO_DEVICE)
        self._stream = self._call(runtime.cudaStreamCreateWithFlags, _NON_BLOCKING, fix=_NO_DEVICE)
        self.stream = int(self._stream)

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
            raise BackendError(f"CUDA: {function.__name__} failed with {name}: {text}.", fix=fix)
        return values[0] if len(values) == 1 else tuple(values)

    def allocate(self, size: int) -> int:
        self._allocations.append(self._call(self._runtime.cudaMalloc, size))
        self.allocated += size
        return self._allocations[-1]

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._page_locked.append(self._call(self._runtime.cudaMallocHost, size))
        self.page_locked += size
        memory = (ctypes.c_uint8 * size).from_address(self._page_locked[-1])
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def to_device(self, pointer: int, array: NDArray[Any]) -> None:
        self._copy(pointer, array.ctypes.data, array, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def to_host(self, array: NDArray[Any], pointer: int) -> None:
        self._copy(array.ctypes.data, pointer, array, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, to: int, source: int, array: NDArray[Any], kind: Any) -> None:
        assert array.flags.c_contiguous, "the bytes of the array lie in one piece"
        self._call(self._runtime.cudaMemcpyAsync, to, source, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        self._call(self._runtime.cudaStreamSynchronize, self._stream)

    def time_ms(self, queue: Callable[[], object]) -> float:
        start, end = (self._call(self._runtime.cudaEventCreate) for _ in range(2))
        self._call(self._runtime.cudaEventRecord, start, self._stream)
        queue()
        self._call(self._runtime.cudaEventRecord, end, self._stream)
        self._call(self._runtime.cudaEventSynchronize, end)
        elapsed = self._call(self._runtime.cudaEventElapsedTime, start, end)
        for event in (start, end):
            self._call(self._runtime.cudaEventDestroy, event)
        return elapsed

    def record(self, queue: Callable[[], object]) -> Graph:
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads go on as they like
        self._call(runtime.cudaStreamBeginCapture, self._stream, mode, fix=_NOT_CAPTURED)
        try:
            queue()
        except BaseException:
            runtime.cudaStreamEndCapture(self._stream)  # a capture left open would swallow all that follows
            raise
        graph = self._call(runtime.cudaStreamEndCapture, self._stream, fix=_NOT_CAPTURED)
        try:
            _, nodes = self._call(runtime.cudaGraphGetNodes, graph)
            if not nodes:
                raise BackendError("CUDA captured no work: it went into another stream.", fix=_NOT_CAPTURED)
            executable = self._call(runtime.cudaGraphInstantiate, graph, 0, fix=_NOT_CAPTURED)
        finally:
            self._call(runtime.cudaGraphDestroy, graph)
        return _CudaPythonGraph(self, executable)

    def memory_info(self) -> tuple[int, int]:
        return self._call(self._runtime.cudaMemGetInfo)

    def close(self) -> None:
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        with ExitStack() as closing:  # backwards, and to the end whatever fails on the way
            closing.callback(self._call, self._runtime.cudaSetDevice, self._device_before)
            closing.callback(self._call, self._runtime.cudaStreamDestroy, stream)
            while self._page_locked:
                closing.callback(self._call, self._runtime.cudaFreeHost, self._page_locked.pop())
            while self._allocations:
                closing.callback(self._call, self._runtime.cudaFree, self._allocations.pop())
            closing.callback(self._call, self._runtime.cudaStreamSynchronize, stream)


class _CudaPythonGraph(Graph):
    def __init__(self, cuda: _CudaPython, executable: Any) -> None:
        self._cuda = cuda
        self._executable = executable

    def launch(self) -> None:
        self._cuda._call(self._cuda._runtime.cudaGraphLaunch, self._executable, self._cuda._stream)

    def close(self) -> None:
        if self._executable is not None:
            self._cuda._call(self._cuda._runtime.cudaGraphExecDestroy, self._executable)
            self._executable = None
