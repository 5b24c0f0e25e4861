"""Records as Markdown."""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.records import Record
from floats_edge.report.profile_tables import record_tables
from floats_edge.report.tables import Table, label_records


def write_markdown(records: Sequence[Record], path: Path) -> None:
    """Write the tables of a report as GitHub's Markdown.

    Raises:
        OutputError: the file system refuses.
    """
    write_tables(record_tables(label_records(records)), path)


def write_tables(tables: Sequence[Table], path: Path) -> None:
    """Write tables as GitHub's Markdown.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, "\n".join(["# floats-edge report\n", *map(_section, tables)]).encode())


def _section(table: Table) -> str:
    rules = ("---:" if column in table.figures else "---" for column in table.columns)
    lines = [
        f"## {_escape(table.title)}",
        "",
        _row(table.columns),
        f"| {' | '.join(rules)} |",
        *map(_row, table.rows),
        "",
    ]
    return "\n".join([*lines, *(f"{_escape(note)}\n" for note in table.notes)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escape, cells))} |"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))
