"""A board made ready: looked at, given floats-edge and the bundles, and then told what to run."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import NoReturn

from pydantic import ValidationError

from floats_edge.artifacts.bundle import Bundle, write_manifest
from floats_edge.artifacts.files import sha256, write_atomic
from floats_edge.board.package import requirements, write_package
from floats_edge.board.ssh import FOLDER, FULL, Board, Tell
from floats_edge.errors import INTERRUPTED, BoardError
from floats_edge.recipe import Section

RECORDS = "profile-*.json"
"""Names of the records that a board keeps: those of earlier commands are removed before the next."""
_MACHINES = ("aarch64", "x86_64")
"""That ONNX Runtime has packages for."""
_OLDEST = (3, 10)
_LARGEST_LOG = 16 * 2**20
_MARK = "floats-edge: "
_LOOK = f"""
import json, os, platform, shutil, sys
os.umask(0o077)
os.makedirs({FOLDER!r}, exist_ok=True)
try:
    import ensurepip, venv
except ImportError:
    venv = None
print({_MARK!r} + json.dumps({{
    "python": sys.version_info[:2],
    "machine": platform.machine(),
    "venv": venv is not None,
    "rsync": shutil.which("rsync") is not None,
    "free": shutil.disk_usage({FOLDER!r}).free,
}}))
"""
"""What a board tells of itself; any Python 3 runs it."""


class _Found(Section):
    """The answer to :data:`_LOOK`."""

    python: tuple[int, int]
    machine: str
    venv: bool
    rsync: bool
    free: int


@dataclass
class Log:
    """What a board told, line by line: shown as it comes, and kept beside the results.

    Attributes:
        path: the file it becomes.
        show: told each line.
    """

    path: Path
    show: Tell
    _lines: list[str] = field(default_factory=list)
    _size: int = 0

    def add(self, line: str) -> None:
        """Show a line, and keep it while there is room."""
        self.show(line)
        self._size += len(line) + 1
        if self._size < _LARGEST_LOG:
            self._lines.append(line)

    def write(self) -> None:
        """Write the file, if anything was told.

        Raises:
            OutputError: the file system refuses.
        """
        if self._lines:
            write_atomic(self.path, ("\n".join(self._lines) + "\n").encode())


@dataclass(frozen=True)
class Session:
    """A board that holds this floats-edge and some bundles.

    Attributes:
        board: where it is.
        package: the folder there that holds floats-edge.
        names: of the bundles there, in :data:`~floats_edge.board.ssh.FOLDER`.
        log: told what the board tells.
    """

    board: Board
    package: str
    names: tuple[str, ...]
    log: Log

    def run(self, commands: Sequence[Sequence[str]]) -> tuple[int, str]:
        """Run commands there until one fails; its exit code, and the end of what was told.

        Args:
            commands: the words after ``floats-edge`` of each.
        """
        request = {
            "requirements": requirements(),
            "gpu_requirements": requirements("gpu"),
            "commands": commands,
            "removes": RECORDS,
        }
        return self.board.attend(f"{self.package}/floats_edge/board/there.py", request, self.log.add)

    def fail(self, code: int, told: str) -> NoReturn:
        """Tell why commands failed on the board, in their own words.

        Raises:
            BoardError: always, but for
            KeyboardInterrupt: they were interrupted.
        """
        host = self.board.host
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        found = re.findall(r"^Error: (.*)\nRemedy: (.*)$", told, re.MULTILINE)
        if code == 255 or not found or FULL.search(told):
            ended = f", ended by {Signals(code - 128).name}" if code - 128 in {*Signals} else ""
            raise self.board.failure(code, told, f"floats-edge was at work{ended}")
        what, fix = found[-1]
        raise BoardError(f"on {host}: {what}", fix=f"on {host}: {fix}")


@contextmanager
def open_session(host: str, bundles: Sequence[Bundle], log: Log) -> Iterator[Session]:
    """Look at a board, and send it floats-edge and the bundles; the log is written whatever then happens.

    Raises:
        ArtifactError: a file of a bundle is not what was exported.
        BoardError: the board cannot be reached, lacks something, or has no room.
    """
    board = Board(host)
    with tempfile.TemporaryDirectory() as temporary:
        desk = Path(temporary)
        log.show("looking at the board")
        _check(board, sum(entry.bytes for bundle in bundles for entry in bundle.manifest.files.values()))
        package = f"package-{write_package(desk / 'package')}"
        log.show("sending floats-edge")
        board.send(desk / "package", package)
        names = tuple(_send_bundle(board, bundle, desk / f"bundle-{i}", log) for i, bundle in enumerate(bundles))
    try:
        yield Session(board, package, names, log)
    finally:
        log.write()


def _check(board: Board, size: int) -> None:
    """Refuse a board that cannot run floats-edge, or has no room for bundles of ``size`` bytes twice."""
    host, answer = board.host, board.ask(_LOOK)
    try:
        found = _Found.model_validate_json(answer.rpartition(_MARK)[2])
    except ValidationError:
        raise BoardError(
            f"{host} did not tell what it is: {answer.strip()[-200:]!r}",
            fix=f"see that 'ssh {host} python3 --version' says its version and nothing else",
        ) from None
    if found.machine not in _MACHINES:
        raise BoardError(
            f"{host} is of the kind {found.machine}; ONNX Runtime has packages for {' and '.join(_MACHINES)}.",
            fix="take a 64-bit system there",
        )
    if found.python < _OLDEST:
        raise BoardError(
            f"python3 of {host} is {found.python[0]}.{found.python[1]}; floats-edge needs 3.10 or newer.",
            fix="take JetPack 6 or newer there, or put a newer python3 first in the PATH that ssh sees",
        )
    lacking = {"python3-venv": found.venv, "rsync": found.rsync}
    packages = " ".join(name for name, there in lacking.items() if not there)
    if packages:
        raise BoardError(f"{host} has no {packages}.", fix=f"ssh -t {host} sudo apt-get install {packages}")
    if found.free < 2 * size:
        raise board.failure(
            0, "No space left on device", f"{2 * size / 2**20:,.1f} MiB are needed, {found.free / 2**20:,.1f} are free"
        )


def _send_bundle(board: Board, bundle: Bundle, copy: Path, log: Log) -> str:
    """Send a bundle, every file by its hash and nothing else that its folder may hold; its name there."""
    for file in bundle.manifest.files:
        write_atomic(copy / file, bundle.read(file))
    write_manifest(copy, bundle.manifest)
    log.show(f"sending {bundle.path}")
    board.send(copy, bundle_name(bundle))
    return bundle_name(bundle)


def bundle_name(bundle: Bundle) -> str:
    """What a bundle is called on a board: by its manifest, which has the hash of every file."""
    return f"bundle-{sha256(bundle.manifest.model_dump_json().encode())[:16]}"
