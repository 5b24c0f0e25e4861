"""Records on the console."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from floats_edge.artifacts.records import Record
from floats_edge.report.tables import Table, label_records, record_tables


def print_records(records: Sequence[Record], console: Console) -> None:
    """Print the tables of a report."""
    print_tables(record_tables(label_records(records)), console)


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print tables and their notes."""
    for table in tables:
        console.print(_grid(table))
        for note in table.notes:
            console.print(Text(note, style="dim"))
        console.print()


def _grid(table: Table) -> Grid:
    grid = Grid(
        title=Text(table.title, style="bold"), title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for column in table.columns:
        grid.add_column(Text(column), justify="right" if column in table.figures else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*map(Text, row))
    return grid
