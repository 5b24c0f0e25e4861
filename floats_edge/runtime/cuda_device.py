"""A CUDA device and what runs on it in order, whatever the binding: :mod:`floats_edge.runtime.cuda` opens one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self

from floats_edge.errors import BackendError, add_extra

Event = Any
"""A place in a stream that others wait for: the binding's own. Where none was marked yet, nobody waits."""


class Cuda(ABC):
    """The first visible device. Belongs to the thread that opened it; use as a context manager.

    It is the thread's current device until :meth:`close`, which makes the one before it current again.

    Copies of ordinary host arrays work too, but the driver stages them on the way: what is copied often belongs into
    :meth:`pinned` memory.

    Attributes:
        name: of the device, for example ``Orin``.
        compute_capability: major and minor, for example ``(8, 7)``.
        stream: for all work but what is to go on beside it.
        has_graphs: whether the binding can :meth:`Stream.record`.
        allocated: bytes of device memory from :meth:`allocate`.
        page_locked: bytes of host memory from :meth:`pinned`.
    """

    name: str
    compute_capability: tuple[int, int]
    stream: "Stream"
    has_graphs: bool
    allocated: int = 0
    page_locked: int = 0

    def __init__(self) -> None:
        self._frees: list[Callable[[], object]] = []
        """Of all memory, on the device and page-locked, in the order in which it was taken."""

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

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Free all memory that was taken inside if something fails there; nothing may use it yet."""
        before = len(self._frees), self.allocated, self.page_locked
        try:
            yield
        except BaseException:
            count, self.allocated, self.page_locked = before
            while len(self._frees) > count:
                self._frees.pop()()
            raise

    @abstractmethod
    def new_stream(self) -> "Stream":
        """Another stream, whose work goes on beside that of the others."""

    @abstractmethod
    def new_event(self) -> Event:
        """An event that marks no place yet."""

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Wait on the host until the device has come to the place that an event marks."""

    def check_graphs(self) -> None:
        """Check before anything is loaded that work can be recorded.

        Raises:
            BackendError: the binding has no graphs.
        """
        if not self.has_graphs:
            raise no_graphs()

    @abstractmethod
    def memory_info(self) -> tuple[int, int]:
        """Free and total device memory, in bytes."""

    @abstractmethod
    def close(self) -> None:
        """Wait until all streams are empty, free all memory and let go of the context."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Stream(ABC):
    """Work that the device does one after the other; a stream lives until its :class:`Cuda` is closed.

    Attributes:
        handle: as TensorRT takes it.
    """

    handle: int

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
    def mark(self, event: Event) -> None:
        """Let an event mark the place behind all that is in the stream now; what it marked before is forgotten."""

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Let what comes after wait until the device has come to the place that an event marks now."""

    @abstractmethod
    def time_ms(self, queue: Callable[[], object]) -> float:
        """Time in ms that the device spends on what ``queue`` puts into the stream: between two CUDA events."""

    @abstractmethod
    def record(self, queue: Callable[[], object]) -> "Graph":
        """Record what ``queue`` puts into the stream as a CUDA graph; nothing of it runs now.

        Raises:
            BackendError: it puts nothing there, or what cannot be captured, or the binding has no graphs.
        """


class Graph(ABC):
    """Recorded work with fixed addresses and shapes; close it before its :class:`Cuda`."""

    @abstractmethod
    def launch(self) -> None:
        """Put all of it into the stream, at the cost of one launch."""

    @abstractmethod
    def close(self) -> None:
        """Free it, after its last launch has ended."""


def no_graphs() -> BackendError:
    """What to tell of a binding that cannot record."""
    return BackendError(
        "pycuda has no CUDA graphs, and cuda-python is not installed.",
        fix=f"{add_extra('gpu')} (JetPack 6: and 'cuda-python<13'), or leave --cuda-graph out",
    )
