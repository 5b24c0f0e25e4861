"""A board as the system's ``ssh`` and ``rsync`` reach it; the user's ssh configuration says how."""

import json
import os
import re
import shlex
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from floats_edge.errors import BoardError, printable

SSH = "FLOATS_EDGE_SSH"
"""Environment variable: what runs instead of ``ssh``, such as ``ssh -p 2222``."""
FOLDER = ".cache/floats-edge/host"
"""Where everything of ours stands on a board, below the home folder, in which ssh starts."""

FULL = re.compile("No space left on device|Disk quota exceeded")
"""What the system, rsync or pip says where a disk is full."""

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HOST = re.compile(rf"({_NAME}@)?{_NAME}")
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4")
"""Nothing waits for a password, and a board that has gone is noticed within a minute."""
_LONGEST_LINE = 4096
_LAST_LINES = 200
_FILE_ERROR = 11
"""Exit code of rsync that could not write there; the reason can be lost on the way."""
_NO_CONNECTION = (255, 10, 12, 30)
"""Exit codes: of ssh itself, and of rsync whose connection ended."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Board:
    """A board, by the name under which ssh knows it.

    Raises:
        BoardError: the name could be taken for an option, or holds what no name does.
    """

    host: str

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise BoardError(
                f"{self.host!r} is no name of a board: BOARD or USER@BOARD is, of letters, digits and . _ -",
                fix="give a port, an IPv6 address or other options a name in ~/.ssh/config: "
                "Host orin, and below it HostName, Port and User; then --host orin",
            )

    def ask(self, program: str) -> str:
        """What a Python program of the standard library prints there.

        Raises:
            BoardError: the board cannot be reached, has no Python, or the program failed.
        """
        done = _run(self._ssh("python3", "-I", "-"), program.encode())
        if done.returncode == 127:
            raise BoardError(
                f"there is no python3 on {self.host}.",
                fix=f"ssh -t {self.host} sudo apt-get install python3 python3-venv",
            )
        if done.returncode:
            raise self.failure(done.returncode, done.stderr, "asking what is there")
        return done.stdout.decode(errors="replace")

    def send(self, folder: Path, name: str) -> None:
        """Make ``name`` in :data:`FOLDER` hold what ``folder`` holds; only what is not there yet is sent.

        Raises:
            BoardError: the connection ended, or the disk there is full.
        """
        shell = shlex.join([*_ssh(), "-T"])
        command = ["rsync", "--recursive", "--checksum", "--partial", f"--rsh={shell}", "--"]
        done = _run([*command, f"{folder}/", f"{self.host}:{FOLDER}/{name}/"])
        if done.returncode:
            raise self.failure(done.returncode, done.stderr, f"sending {name}")

    def fetch(self, name: str, largest: int) -> bytes | None:
        """A file of at most ``largest`` bytes from :data:`FOLDER`; None where there is none.

        Raises:
            BoardError: the connection ended, or the file is larger.
        """
        command = self._ssh("cat", f"{FOLDER}/{name}")
        with _start(command, subprocess.DEVNULL, subprocess.PIPE, subprocess.DEVNULL) as process:
            assert process.stdout is not None
            try:
                data = process.stdout.read(largest + 1)
                if len(data) <= largest:
                    process.wait()
            finally:
                process.kill()  # it may have more to send
        if len(data) > largest:
            raise BoardError(
                f"{name} on {self.host} is larger than it can be: more than {largest} bytes.",
                fix="see what writes there, and run the same command again",
            )
        if process.returncode == 255:
            raise self.failure(255, b"", f"fetching {name}")
        return data if process.returncode == 0 else None

    def attend(self, program: str, request: Mapping[str, Any], tell: Tell) -> tuple[int, str]:
        """Run a Python file of :data:`FOLDER` that ends when we do; its exit code, and the end of what it told.

        Ctrl-C asks it to end, and waits until it has; a second one leaves at once.

        Args:
            program: the file.
            request: what it reads, as a line of JSON.
            tell: told every line that it writes to standard error, as it comes.
        """
        command = self._ssh("python3", "-I", f"{FOLDER}/{program}")
        told: deque[str] = deque(maxlen=_LAST_LINES)

        def hear(line: str) -> None:
            told.append(line)
            tell(line)

        process = _start(command, subprocess.PIPE, subprocess.DEVNULL, subprocess.PIPE)
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            with suppress(BrokenPipeError):  # what it says then tells why
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            while not _followed(process.stderr, process.stdin, hear):
                pass
            return process.wait(), "\n".join(told)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
            with suppress(BrokenPipeError):
                process.stdin.close()

    def failure(self, code: int, said: bytes | str, doing: str) -> BoardError:
        """What an ssh or rsync that ended with ``code`` is told as, by what it said."""
        text = said if isinstance(said, str) else said.decode(errors="replace")
        silent = not text.strip()
        if FULL.search(text) or (silent and code == _FILE_ERROR):
            return BoardError(
                f"the disk of {self.host} is full{' or cannot be written' if silent else ''} ({doing}).",
                fix=f"make room there: ssh {self.host} df -h; what floats-edge keeps there can go: "
                f"ssh {self.host} rm -r {FOLDER}",
            )
        last = " ".join(text.strip().split("\n")[-4:])
        if code not in _NO_CONNECTION:
            return BoardError(
                f"{doing} failed on {self.host} with exit code {code}: {last or 'it said nothing'}",
                fix=f"see that 'ssh {self.host} true' says nothing and ends well, and run the same command again",
            )
        for sign, what, fix in _REFUSALS:
            if re.search(sign, text):
                return BoardError(f"{self.host} {what}", fix=fix.format(host=self.host))
        return BoardError(
            f"the connection to {self.host} was lost while {doing}. {last}".strip(),
            fix=f"see that 'ssh {self.host}' gets there, and run the same command again: what is there is used again",
        )

    def _ssh(self, *words: str) -> list[str]:
        return [*_ssh(), "-T", "--", self.host, shlex.join(words)]


_REFUSALS = (
    (
        "Host key verification failed",
        "is not known to ssh by its host key, or is another machine than before.",
        "'ssh {host}' once by hand, and compare what it shows; if the board was set up anew: ssh-keygen -R its name",
    ),
    (
        r"Permission denied \([a-z]",
        "does not let this user in: it accepts none of the keys, and nothing here asks for passwords.",
        "ssh-copy-id {host}; if the key has a passphrase, ssh-add it first",
    ),
    *(
        (sign, f"cannot be reached: {why}", "see that it is on, and that 'ssh {host}' gets there")
        for sign, why in (
            ("Could not resolve hostname", "there is no such name."),
            ("Connection refused", "no sshd answers at its port."),
            ("No route to host|Network is unreachable", "no network leads there."),
            ("timed out", "it does not answer."),
        )
    ),
)
"""What ssh says where there is no connection; what that means, and what mends it."""


def _ssh() -> list[str]:
    options = (word for option in _OPTIONS for word in ("-o", option))
    try:
        command = shlex.split(os.environ.get(SSH, ""))
    except ValueError as error:
        raise BoardError(f"{SSH} is no command: {error}.", fix=f"set it as in {SSH}='ssh -p 2222'") from None
    return [*(command or ["ssh"]), *options]  # of two values ssh takes the first


def _run(command: Sequence[str], data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(command, input=data, capture_output=True, check=False)  # noqa: S603 - no shell
    except OSError as error:
        raise _missing(command[0], error) from None


def _start(command: Sequence[str], stdin: int, stdout: int, stderr: int) -> "subprocess.Popen[bytes]":
    """Start it where Ctrl-C does not reach it: we end it."""
    try:
        return subprocess.Popen(  # noqa: S603 - no shell
            command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
    except OSError as error:
        raise _missing(command[0], error) from None


def _missing(command: str, error: OSError) -> BoardError:
    return BoardError(
        f"{command} cannot be run here: {error.strerror}.",
        fix=f"sudo apt-get install openssh-client rsync; what {SSH} says is run instead of ssh",
    )


def _followed(stream: IO[bytes], lifeline: IO[bytes], hear: Tell) -> bool:
    """Whether what comes from the board was heard to its end, line by line; the first Ctrl-C closes ``lifeline``."""
    try:
        while line := stream.readline(_LONGEST_LINE):
            hear(printable(line.decode(errors="replace").rstrip("\r\n")))
    except KeyboardInterrupt:
        if lifeline.closed:
            raise
        lifeline.close()
        hear("interrupted: it is asked to end there; Ctrl-C again does not wait for it")
        return False
    return True
