"""``floats-edge quickstart``: the whole pipeline as the commands one would type."""

import io
import shlex
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="quickstart", show_default=True, help="Folder to fill.")
@click.pass_context
def quickstart(ctx: click.Context, out: Path) -> None:
    """Train, evaluate, export, profile and report a small network on this machine.

    Scikit-learn's handwritten digits, two to three minutes on two CPU cores, no download. Every command is printed
    before it runs, and what evaluate and profile found at the end, in short; the page has all of it. A finished
    training run in the folder is used again.
    """
    from rich.console import Console

    from floats_edge.artifacts.records import load_record
    from floats_edge.deploy.tensorrt_engine import available_tensorrt
    from floats_edge.report.console import print_tables
    from floats_edge.report.profile_tables import speed_tables
    from floats_edge.report.tables import accuracy_table, label_records

    run, bundle, report = out / "run", out / "bundle", out / "report.html"
    records = [out / "evaluation-checkpoint.json", out / "evaluation-bundle.json", out / "profile.json"]
    found = available_tensorrt()
    if found is None:
        click.echo(
            "TensorRT is not installed, so no engine is built: floats-edge doctor names the command that adds it."
        )
    steps = [
        ["train", "quickstart", "--out", run, "--resume"],
        ["evaluate", run, "-o", records[0]],
        ["export", run, "-o", bundle, "--lambda", "runtime", *([] if found is None else ["--trt", "--batch", "1:1:8"])],
        ["evaluate", bundle, "-o", records[1]],
        ["profile", bundle, "--batch", "1", "--batch", "8", "-o", records[2]],
        ["report", *records, "--html", report],
    ]
    assert ctx.parent is not None, "quickstart is a command of the floats-edge group"
    for number, step in enumerate(steps, 1):
        words = [str(word) for word in step]
        click.secho(f"\n[{number}/{len(steps)}] $ floats-edge {shlex.join(words)}", bold=True)
        with redirect_stdout(io.StringIO()) if step[-1] in records else nullcontext():
            status = ctx.parent.command.main(words, prog_name="floats-edge", standalone_mode=False)
        if status:
            ctx.exit(status)
    click.echo()
    deployed = label_records([load_record(path) for path in records[1:]])
    print_tables([accuracy_table(deployed), *speed_tables(deployed)], Console(highlight=False))
    click.secho(f"Done: open {report}, which has all figures", bold=True)
