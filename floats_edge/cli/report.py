"""``floats-edge report``: evaluations and profiles as tables and plots."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from floats_edge.errors import ArtifactError

if TYPE_CHECKING:
    from floats_edge.artifacts.records import Record

_OUTPUT = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("records", metavar="RECORD...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", type=_OUTPUT, help="Write one self-contained page with plots; it loads nothing from elsewhere.")
@click.option("--png", type=_OUTPUT, help="Write the plots as one image.")
@click.option("--markdown", type=_OUTPUT, help="Write the tables as Markdown.")
@click.option("--csv", type=_OUTPUT, help="Write every figure as a row with its unit, sample size and source.")
@click.option(
    "--across-conditions",
    is_flag=True,
    help="Show profiles and comparisons side by side although they were taken under different conditions.",
)
def report(
    records: tuple[Path, ...],
    html: Path | None,
    png: Path | None,
    markdown: Path | None,
    csv: Path | None,
    across_conditions: bool,
) -> None:
    """Render evaluations and profiles.

    RECORD is what floats-edge evaluate or floats-edge profile wrote, any number of them. Without options the tables are
    printed, as far as a console has room. Profiles and comparisons under different conditions are refused. The page
    shows images that the network got wrong, if the PNG that evaluate wrote is still beside its record.

    \b
    Examples:
      floats-edge report profile.json
      floats-edge report evaluation.json profile.json --html report.html --png report.png
    """
    from rich.console import Console

    from floats_edge.artifacts.records import load_pictures
    from floats_edge.report.comparability import check_comparable
    from floats_edge.report.console import print_records
    from floats_edge.report.csv import write_csv
    from floats_edge.report.figures import write_png
    from floats_edge.report.html import write_html
    from floats_edge.report.markdown import write_markdown

    loaded = [_load(path) for path in records]
    if not across_conditions:
        check_comparable(loaded)
    if html is not None:
        pictures = [load_pictures(record, path) for record, path in zip(loaded, records, strict=True)]
        write_html(loaded, html, pictures)
        click.echo(f"Written to {html}")
    outputs = ((write_png, png), (write_markdown, markdown), (write_csv, csv))
    for write, path in outputs:
        if path is not None:
            write(loaded, path)
            click.echo(f"Written to {path}")
    if html is None and all(path is None for _, path in outputs):
        print_records(loaded, Console(highlight=False))


def _load(path: Path) -> "Record":
    """Read a record; of a study, tell where it is shown."""
    from floats_edge.artifacts.records import load_record
    from floats_edge.artifacts.study import load_study

    try:
        return load_record(path)
    except ArtifactError:
        with suppress(ArtifactError):
            load_study(path)
            raise click.UsageError(f"{path} is a study: look at study.md and study.png beside it") from None
        raise
