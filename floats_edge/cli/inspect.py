"""``floats-edge inspect``: what a bundle, a training run or a record holds."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def inspect(path: Path, as_json: bool) -> None:
    """Show what a bundle, a run or a record holds.

    PATH is a bundle, the run folder of a training, or an evaluation or profile in JSON. The hash of every file is
    checked first: if one is missing, truncated or altered, that is the answer, and the exit code is 1. No PyTorch is
    needed, and no engine is loaded.

    \b
    Examples:
      floats-edge inspect runs/quickstart
      floats-edge inspect bundle --json
    """
    from rich.console import Console

    from floats_edge.cli.summary import summarize
    from floats_edge.report.console import print_tables

    summary = summarize(path)
    if as_json:
        click.echo(json.dumps(summary.content, indent=2))
    else:
        print_tables(summary.tables, Console(highlight=False))
