"""Records on the console."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from floats_edge.artifacts.records import Record
from floats_edge.report.profile_tables import record_tables
from floats_edge.report.tables import Table, label_records


def print_records(records: Sequence[Record], console: Console) -> None:
    """Print the tables of a report."""
    print_tables(record_tables(label_records(records)), console)


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print tables and their notes; columns of details are left out."""
    for table in tables:
        console.print(_grid(table))
        for note in table.notes:
            console.print(Text(note, style="dim"))
        console.print()


def _grid(table: Table) -> Grid:
    grid = Grid(
        title=Text(table.title, style="bold"), title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    shown = [index for index, column in enumerate(table.columns) if column not in table.details]
    for column in (table.columns[index] for index in shown):
        grid.add_column(Text(column), justify="right" if column in table.figures else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(row[index]) for index in shown))
    return grid
