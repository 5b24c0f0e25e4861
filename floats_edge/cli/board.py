"""What commands share that work on a board: the option, the words that are said again there, what is shown."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from floats_edge.board.session import Log

host_option = click.option(
    "--host",
    metavar="[USER@]BOARD",
    help="Work on this board, by ssh and rsync, as your ssh configuration reaches it. See README: From your desk.",
)

_BETWEEN = {"batch": ":", "boards": ","}
"""What stands between the parts of a value that was given as one word."""


def given_options(ctx: click.Context, *left_out: str) -> dict[str, list[str]]:
    """The options that stand on this command line, by parameter, each as the words that say it again."""
    found: dict[str, list[str]] = {}
    for option in ctx.command.params:
        name = option.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not isinstance(option, click.Option) or not given or name in left_out:
            continue
        value, flag = ctx.params[name], option.opts[-1]
        if option.is_flag:
            found[name] = [flag]
        else:
            values = value if option.multiple else (value,)
            found[name] = [f"{flag}={_text(name, one)}" for one in values]
    return found


def _text(name: str, value: object) -> str:
    return _BETWEEN[name].join(map(str, value)) if isinstance(value, tuple) else str(value)


def board_log(host: str, out: Path) -> "Log":
    """The log beside ``out`` of what a board tells, every line of which is shown as it comes."""
    from floats_edge.board.session import Log
    from floats_edge.cli.console import status_console

    console = status_console()
    place = out.resolve()
    path = place.with_name(f"{place.name}.log")
    return Log(path, lambda line: console.print(f"{host}: {line}", markup=False, soft_wrap=True))
