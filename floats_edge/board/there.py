"""What runs on a board: by the board's own python3, as a file, before anything is installed there.

The desk sends one line of JSON and then holds the pipe open. When the pipe ends (Ctrl-C at the desk, a closed lid, a
lost network), what runs here is ended, too.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3]
"""Where everything of ours stands on the board: this file is ``package-HASH/floats_edge/board/there.py`` in it."""

INTERRUPTED = 130
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals by which what runs here is ended."""
_ROOM = 500 * 2**20
"""Bytes that an installation may take: 241 MiB were measured on x86-64, without what pip keeps beside it."""
_GRACE_S = 20
"""For a command that is asked to end: a profile keeps what it has measured."""


def main() -> int:
    """Do what the desk asks for; the exit code is that of the first command that fails."""
    os.umask(0o077)
    for number in _ENDINGS:  # a session may have inherited that they are ignored
        signal.signal(number, signal.default_int_handler)
    try:
        request = json.loads(_first_line())
        threading.Thread(target=_end_with_desk, args=(threading.get_ident(),), daemon=True).start()
        return _alone(request)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _failed(f"{error.strerror}: {error.filename or FOLDER}", "mend that there, and run the same again")


def _first_line() -> bytes:
    """Read byte by byte: a buffer would hold the lock that the watching thread's read needs."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line


def _end_with_desk(main_thread: int) -> None:
    while os.read(0, 4096):
        pass
    signal.pthread_kill(main_thread, signal.SIGINT)


def _alone(request: dict[str, Any]) -> int:
    """One at a time: two measurements would spoil each other, two installations the environment."""
    with (FOLDER / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            return _failed(
                "another floats-edge command of a desk is running there.",
                f"wait until it has ended, or end it there: kill {lock.read().strip()}",
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return _work(request)


def _work(request: dict[str, Any]) -> int:
    requirements = [*request["requirements"], *_for_gpu(request["gpu_requirements"])]
    python, code = _environment(requirements)
    if code:
        return code
    for earlier in FOLDER.glob(request["removes"]):
        earlier.unlink()
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    for command in request["commands"]:
        code = _run([str(python), "-m", "floats_edge", *command], {"PYTHONPATH": path}, subprocess.DEVNULL)
        if code:
            return code
    return 0


def _for_gpu(requirements: Sequence[str]) -> list[str]:
    """What the board's GPU needs, CUDA's bindings of its driver's major version or older; nothing without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return []
    return [*requirements, f"cuda-python<{version.value // 1000 + 1}"]


def _environment(requirements: Sequence[str]) -> tuple[Path, int]:
    """The Python of an environment that holds ``requirements``, made if it is not there; and why not, as an exit code.

    It sees the packages of the system, among them the TensorRT of JetPack.
    """
    identity = json.dumps([list(requirements), sys.version_info[:2]])
    folder = FOLDER / f"venv-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python, 0
    free = shutil.disk_usage(FOLDER).free
    if free < _ROOM:
        need = f"{_ROOM // 2**20} MiB are needed to install floats-edge, and {free // 2**20} MiB are free"
        return python, _failed(f"No space left on device: {need}.", "make room there")
    _tell("installing what floats-edge needs, once for this board")
    shutil.rmtree(folder, ignore_errors=True)
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *requirements]
    for command in ([sys.executable, "-m", "venv", "--system-site-packages", str(folder)], install):
        if _run(command, {}, sys.stderr.fileno()):
            return python, _failed(
                "what floats-edge needs could not be installed: the reason stands above and in the log.",
                "see that pip reaches a package index there, and run the same again: what was downloaded is kept",
            )
    ready.touch()
    return python, 0


def _run(command: Sequence[str], variables: dict[str, str], stdout: int) -> int:
    """Run a command to its end; if the desk goes away, end it with all that it has started."""
    child = None
    try:
        with _interrupted_at_the_end():  # before, nobody would know which child to end
            child = subprocess.Popen(  # noqa: S603 - no shell
                command,
                cwd=FOLDER,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                start_new_session=True,
            )
        code = child.wait()
        return code if code >= 0 else 128 - code  # as shells tell a signal
    except KeyboardInterrupt:
        if child is not None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
        raise
    finally:
        if child is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@contextmanager
def _interrupted_at_the_end() -> Iterator[None]:
    """A signal that comes meanwhile interrupts when all is done."""
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _failed(what: str, remedy: str) -> int:
    """Tell a failure as floats-edge's commands do."""
    _tell(f"Error: {what}\nRemedy: {remedy}")
    return 1


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
