"""One call in a process of its own: its memory and load time are nobody else's, and its crash takes nothing along."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, TypeVar

from typing_extensions import Self

from floats_edge.errors import BackendError, FloatsError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_REMEDY = "floats-edge doctor shows what this machine can run"
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals by which a command is ended."""


def run_isolated(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call ``function`` in a fresh interpreter and return its result; function, arguments and result are pickled.

    The new interpreter imports the main script, which must guard what it runs with ``if __name__ == "__main__"``.

    Raises:
        FloatsError: the call raised it.
        BackendError: the call raised anything else, or its process died.
    """
    with Worker(function, *args, **kwargs) as worker:
        return worker.answer()


class Worker:
    """A fresh interpreter that calls ``function`` and is killed at the end; use as a context manager.

    A function that yields answers is told by :meth:`proceed` to go on to its next one.

    Raises:
        FloatsError: see :func:`run_isolated`; so does :meth:`answer`.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=_call, args=(self._theirs, function, args, kwargs), daemon=True)

    def __enter__(self) -> Self:
        try:
            with _interruptions_held_back():
                self._process.start()
        except BaseException:
            self._end()
            raise
        self._theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def proceed(self) -> None:
        """Let a function that yields go on."""
        try:
            self._pipe.send(None)
        except BrokenPipeError:
            self._died()

    def answer(self) -> Any:
        """What the function returns or yields next.

        Raises:
            FloatsError: the call raised it.
            BackendError: the call raised anything else, or its process died.
        """
        try:
            result, failure = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._died()
        if failure is not None:
            kind, what, fix = failure
            raise kind(what, fix=fix)
        return result

    def _died(self) -> NoReturn:
        self._process.join()
        raise BackendError(f"its process died: {_cause(self._process.exitcode)}.", fix=_REMEDY) from None

    def _end(self) -> None:
        if self._process.pid is not None:
            self._process.kill()  # before the pipe closes, at whose end it would complain
            self._process.join()
        self._pipe.close()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interruptions_held_back() -> Iterator[None]:
    """Act on Ctrl-C, ``kill`` or a closed terminal after a process was started: one cut short would print a traceback.

    The new process inherits that Ctrl-C, which reaches every process of a terminal, is blocked. Here other threads do
    not block it, so that Python would still raise. Only the main thread has handlers, and only there Python raises.
    """
    resource_tracker.ensure_running()  # otherwise the first start does it, and unblocks the signal
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pressed: list[int] = []
    ours = threading.current_thread() is threading.main_thread()
    handlers = {n: found for n in _ENDINGS if ours and callable(found := signal.getsignal(n))}  # none that is ignored
    for number in handlers:
        signal.signal(number, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    if pressed:
        signal.raise_signal(pressed[0])


def _call(pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        result = function(*args, **kwargs)
        if not isinstance(result, Iterator):
            pipe.send((result, None))
            return
        for answer in result:
            pipe.send((answer, None))
            pipe.recv()
    except FloatsError as error:
        pipe.send((None, (type(error), error.what, error.fix)))
    except Exception as error:  # noqa: BLE001 - a backend may raise anything; the parent reports it
        pipe.send((None, (BackendError, f"{type(error).__name__}: {error}", _REMEDY)))


def _cause(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
