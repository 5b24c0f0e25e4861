"""The file that runs on the board, where a test of the whole way cannot look."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from floats_edge.board import there


class Driver:
    """What ``ctypes.CDLL("libcuda.so.1")`` is with a driver for this version of CUDA."""

    def __init__(self, version: int, code: int = 0) -> None:
        self.version, self.code = version, code

    def cuDriverGetVersion(self, pointer: object) -> int:  # noqa: N802
        pointer._obj.value = self.version  # type: ignore[attr-defined]
        return self.code


@pytest.mark.parametrize(
    ("driver", "wanted"),
    [
        (Driver(12060), ["cuda-python>=12.6", "cuda-python<13"]),
        (Driver(13000), ["cuda-python>=12.6", "cuda-python<14"]),
        (Driver(0, code=100), []),
    ],
)
def test_bindings_of_cuda_are_no_newer_than_the_driver(driver: Driver, wanted: list[str], monkeypatch) -> None:
    monkeypatch.setattr(there.ctypes, "CDLL", lambda name: driver)
    assert there._for_gpu(["cuda-python>=12.6"]) == wanted


def test_a_board_without_a_driver_gets_no_bindings(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(there.ctypes, "CDLL", missing)
    assert there._for_gpu(["cuda-python>=12.6"]) == []


@pytest.mark.usefixtures("interruptible")
def test_a_command_that_is_interrupted_while_it_starts_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = []

    class Interrupted(subprocess.Popen):
        """Its start takes longer than the desk stays."""

        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(there.subprocess, "Popen", Interrupted)
    monkeypatch.setattr(there, "FOLDER", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        there._run(["sleep", "60"], {}, subprocess.DEVNULL)
    (child,) = started
    assert child.poll() == -signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_needs_nothing_but_the_standard_library() -> None:
    program = f"import runpy; runpy.run_path({str(Path(there.__file__))!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
