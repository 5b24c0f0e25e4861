"""One call in a process of its own: its memory and load time are nobody else's, and its crash takes nothing along."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from floats_edge.errors import BackendError, FloatsError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_REMEDY = "floats-edge doctor shows what this machine can run"


def run_isolated(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call ``function`` in a fresh interpreter and return its result; function, arguments and result are pickled.

    The new interpreter imports the main script, which must guard what it runs with ``if __name__ == "__main__"``.

    Raises:
        FloatsError: the call raised it.
        BackendError: the call raised anything else, or its process died.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, args, kwargs), daemon=True)
    try:
        with _interrupt_held_back():
            process.start()
        sender.close()
        result, failure = receiver.recv()
    except EOFError:
        process.join()
        raise BackendError(f"its process died: {_cause(process.exitcode)}.", fix=_REMEDY) from None
    finally:
        receiver.close()
        if process.pid is not None:
            process.kill()
            process.join()
    if failure is not None:
        kind, what, fix = failure
        raise kind(what, fix=fix)
    return result


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Keep Ctrl-C, which reaches every process of a terminal, from one that is started here; act on it here afterwards.

    The new process inherits the blocked signal. In this one other threads do not block it, so that Python would still
    raise, and a start cut short ends in a traceback of the new process.
    """
    resource_tracker.ensure_running()  # otherwise the first start does it, and unblocks the signal
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pressed: list[int] = []
    handler = None  # only the main thread has one, and only there Python raises
    if threading.current_thread() is threading.main_thread():
        handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _call(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        outcome = function(*args, **kwargs), None
    except FloatsError as error:
        outcome = None, (type(error), error.what, error.fix)
    except Exception as error:  # noqa: BLE001 - a backend may raise anything; the parent reports it
        outcome = None, (BackendError, f"{type(error).__name__}: {error}", _REMEDY)
    sender.send(outcome)


def _cause(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
