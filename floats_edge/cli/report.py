"""``floats-edge report``: evaluations and profiles as tables and plots."""

from pathlib import Path

import click

_OUTPUT = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("records", metavar="RECORD...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", type=_OUTPUT, help="Write one self-contained page with plots; it loads nothing from elsewhere.")
@click.option("--png", type=_OUTPUT, help="Write the plots as one image.")
@click.option("--markdown", type=_OUTPUT, help="Write the tables as Markdown.")
def report(records: tuple[Path, ...], html: Path | None, png: Path | None, markdown: Path | None) -> None:
    """Render evaluations and profiles.

    RECORD is what floats-edge evaluate or floats-edge profile wrote, any number of them. Without options the tables are
    printed.

    \b
    Examples:
      floats-edge report profile.json
      floats-edge report evaluation.json profile.json --html report.html --png report.png
    """
    from rich.console import Console

    from floats_edge.artifacts.records import load_record
    from floats_edge.report.console import print_records
    from floats_edge.report.figures import write_png
    from floats_edge.report.html import write_html
    from floats_edge.report.markdown import write_markdown

    loaded = [load_record(path) for path in records]
    for write, path in ((write_html, html), (write_png, png), (write_markdown, markdown)):
        if path is not None:
            write(loaded, path)
            click.echo(f"Written to {path}")
    if html is None and png is None and markdown is None:
        print_records(loaded, Console(highlight=False))
