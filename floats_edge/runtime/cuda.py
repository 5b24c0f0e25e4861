"""CUDA from Python: one device, its primary context, one stream. The only file that imports a CUDA binding.

The binding is pycuda where it is installed (Jetson) and otherwise cuda-python (``cuda.bindings``). Both work in the
device's *primary* context, the one that TensorRT, cuDNN and PyTorch share, so pointers may be handed to any of them.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from numpy.typing import NDArray
from typing_extensions import Self

from floats_edge.errors import BackendError

_NO_BINDING = "pip install 'floats-edge[gpu]', or on a Jetson: pip install 'floats-edge[jetson]'"
_NO_DEVICE = "check the driver with nvidia-smi (Jetson: tegrastats); in a container start it with --gpus all"
_IN_USE = "if memory ran out, close other programs on this GPU or use a smaller batch; otherwise run it again"


class Cuda(ABC):
    """The first visible device. Belongs to the thread that opened it; use as a context manager.

    Host arrays are ordinary pageable memory, which the driver stages on the way.

    Attributes:
        name: of the device, for example ``Orin``.
        compute_capability: major and minor, for example ``(8, 7)``.
        stream: handle of the stream that all copies go through, as TensorRT takes it.
    """

    name: str
    compute_capability: tuple[int, int]
    stream: int

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
    def memory_info(self) -> tuple[int, int]:
        """Free and total device memory, in bytes."""

    @abstractmethod
    def close(self) -> None:
        """Free all memory and let go of the context."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_cuda() -> Cuda:
    """Open the first visible device.

    Raises:
        BackendError: no binding, no driver or no device; says which.
    """
    try:
        return _PyCuda()
    except ImportError as no_pycuda:
        try:
            return _CudaPython()
        except ImportError as no_cuda_python:
            raise BackendError(f"there is no CUDA binding: {no_pycuda}; {no_cuda_python}.", fix=_NO_BINDING) from None


def cuda_unavailable_reason() -> str | None:
    """Why CUDA cannot be used here, or None if it can."""
    try:
        open_cuda().close()
    except BackendError as error:
        return error.what.rstrip(".")
    return None


class _PyCuda(Cuda):
    def __init__(self) -> None:
        self._driver = driver = importlib.import_module("pycuda.driver")
        self._allocations: list[Any] = []
        with self._errors(_NO_DEVICE):
            driver.init()
            device = driver.Device(0)
            self.name = device.name()
            self.compute_capability = device.compute_capability()
            self._context = device.retain_primary_context()
            self._context.push()
            self._stream = driver.Stream()
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
        return int(self._allocations[-1])

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

    def memory_info(self) -> tuple[int, int]:
        with self._errors():
            return self._driver.mem_get_info()

    def close(self) -> None:
        with self._errors():
            while self._allocations:
                self._allocations.pop().free()
            if self._context is not None:
                del self._stream
                self._context.pop()
                self._context = None


class _CudaPython(Cuda):
    def __init__(self) -> None:
        self._runtime = runtime = importlib.import_module("cuda.bindings.runtime")
        self._allocations: list[int] = []
        properties = self._call(runtime.cudaGetDeviceProperties, 0, fix=_NO_DEVICE)
        self.name = properties.name.decode()
        self.compute_capability = (properties.major, properties.minor)
        self._call(runtime.cudaSetDevice, 0, fix=_NO_DEVICE)
        self._stream = self._call(runtime.cudaStreamCreate, fix=_NO_DEVICE)
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
        return self._allocations[-1]

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

    def memory_info(self) -> tuple[int, int]:
        return self._call(self._runtime.cudaMemGetInfo)

    def close(self) -> None:
        while self._allocations:
            self._call(self._runtime.cudaFree, self._allocations.pop())
        if self._stream is not None:
            self._call(self._runtime.cudaStreamDestroy, self._stream)
            self._stream = None
