"""The ``floats-edge`` command: finds the command asked for, and tells expected failures in one paragraph."""

import errno
import importlib
import io
import os
import signal
import sys
from typing import NoReturn

import click

from floats_edge import __version__
from floats_edge.errors import INTERRUPTED, FloatsError, OutputError

COMMANDS = (
    *("train", "evaluate", "compare", "export", "verify", "profile", "pack"),
    *("report", "inspect", "doctor", "quickstart"),
)
"""In the order of the pipeline; each is a module of this package that holds a click command of the same name."""

TRACEBACK = "FLOATS_EDGE_TRACEBACK"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Failure(click.ClickException):
    """A :class:`FloatsError` as click shows it: on stderr, exit code 1."""

    def __init__(self, error: FloatsError) -> None:
        super().__init__(error.what)
        self.fix = error.fix

    def show(self, file: object = None) -> None:
        del file  # an error is for stderr
        text = f"Error: {self.message}\nRemedy: {self.fix}"
        # It may quote a stranger's bundle: what would steer the terminal is shown as an escape.
        click.echo("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text), err=True)


class Pipeline(click.Group):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"floats_edge.cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with its whole first sentence; click would cut it to one line."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(200)) for name, command in commands.items() if command]
            )

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FloatsError as error:
            if os.environ.get(TRACEBACK) == "1":
                raise
            raise Failure(error) from None
        except MemoryError:
            remedy = "close other programs, or use fewer or smaller images at a time: --help shows the options"
            raise Failure(FloatsError("there is not enough memory.", fix=remedy)) from None
        except KeyboardInterrupt:
            click.echo("\nInterrupted; what had been written whole is kept, the rest is removed.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(
    cls=Pipeline,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Set {TRACEBACK}=1 to see the traceback of an error.",
)
@click.version_option(__version__, prog_name="floats-edge", message="%(prog)s %(version)s")
def cli() -> None:
    """Train FLOATS networks, export them to ONNX and TensorRT, and profile them on the edge.

    One network serves every lambda from 0 (best on clean images) to 1 (best on attacked ones). To see it all at work
    in three minutes, without a GPU: floats-edge quickstart.
    """
    # The idle threads of PyTorch's OpenMP spin by default, and slow all down where other programs want the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main() -> None:
    """Entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # ? where it is not UTF-8; Python lets stderr escape what it lacks
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, _interrupt)
    try:
        cli(prog_name="floats-edge")
    except OSError as error:  # of what was printed: a closed pipe is click's affair, files are those of the commands
        if error.errno not in _NO_ROOM or os.environ.get(TRACEBACK) == "1":
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where Python writes what is left, when it ends
        what, fix = f"the output cannot be written: {error.strerror}.", "make room where it goes, or redirect it"
        Failure(OutputError(what, fix=fix)).show()
        sys.exit(1)


def _interrupt(*_: object) -> NoReturn:
    """End as after Ctrl-C, with nothing half-written or still running, where it is ``kill`` or a closed terminal."""
    raise KeyboardInterrupt
