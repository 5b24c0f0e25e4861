"""``floats-edge compare``: methods and sparsities on equal footing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from floats_edge.cli.parameters import allow_code

if TYPE_CHECKING:
    from floats_edge.artifacts.study import Equal, Footing, Trial
    from floats_edge.cli.console import TrainingProgress


@click.command()
@click.argument("recipes", metavar="RECIPE...", nargs=-1, required=True)
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Override a key of all recipes.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Trainings of each variant.")
@click.option(
    "--equal",
    type=click.Choice(["epochs", "passes", "seconds"]),
    default="epochs",
    show_default=True,
    help="What every variant has as much of as the reference: epochs, images that the network trains on, or seconds.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to fill.  [default: runs/NAME of the first recipe]"
)
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Image folder or list, or where downloads go.")
@click.option("--skip-damaged", is_flag=True, help="Leave out images that are damaged or too thin, and say which.")
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …; auto takes a GPU where one is."
)
@allow_code
def compare(
    recipes: tuple[str, ...],
    options: tuple[str, ...],
    seeds: int,
    equal: "Equal",
    out: Path | None,
    split: Literal["test", "validation"],
    data_dir: Path | None,
    skip_damaged: bool,
    device: str,
    allow_code: bool,
) -> None:
    """Train variants of a recipe on equal footing and compare accuracy, robustness and cost.

    RECIPE is an ordinary recipe, or one with a key `variants` such as compare-small. All variants share data, network
    (but not its arguments, such as the width), training and evaluation, and of the other keys outside `variants` each
    takes those that it reads. What is finished is used again: repeat the command to continue, or with more --seeds.

    The key `reference` names the variant that all others are compared with (else the first one). --equal seconds times
    some training steps of each variant here, then chooses epochs so that each trains as long as the reference. The key
    `envelopes` names groups of variants without a knob: {name: [variant, variant]}. One network with a knob is set
    beside the best that each group offers. A group may be the reference, too: then the others train as long as all of
    its variants together.

    \b
        floats-edge compare compare-patterns --seeds 3
        floats-edge compare compare-small --equal seconds --seeds 5
        floats-edge compare cifar10-float cifar10-floats-irregular --out runs/sparsity

    Writes study.json, study.md and study.png into the folder.
    """
    from rich.console import Console

    from floats_edge.cli.console import status_console, tell_images
    from floats_edge.cli.devices import torch_device
    from floats_edge.compare.plan import load_plan
    from floats_edge.data import Reading
    from floats_edge.report.console import print_tables
    from floats_edge.report.markdown import write_tables
    from floats_edge.report.study import study_tables, write_study_png

    plan = load_plan(recipes, options)
    torch_name = torch_device(device, *(variant.train for variant in plan.variants.values()))
    from floats_edge.compare import run
    from floats_edge.networks.spec import Code
    from floats_edge.training.distributed import refuse_workers

    refuse_workers("floats-edge compare")
    folder = out or Path("runs") / Path(recipes[0]).stem
    reading = Reading(skip_damaged, tell_images(status_console()))
    code = Code(allow_code)
    study = run.compare(plan, seeds, folder, _Progress(), data_dir, torch_name, split, reading, code, equal)
    tables = study_tables(study)
    write_tables(tables, folder / "study.md")
    write_study_png(study, folder / "study.png")
    print_tables(tables, Console(highlight=False))
    click.echo(f"Written to {folder}")


class _Progress:
    """Draws a comparison. Implements ``compare.run.Watcher``."""

    def on_footing(self, footing: "Footing") -> None:
        from floats_edge.cli.console import status_console
        from floats_edge.report.console import print_tables
        from floats_edge.report.footing import footing_table

        print_tables([footing_table(footing)], status_console())

    @contextmanager
    def training(self, name: str, epochs: int) -> "Iterator[TrainingProgress]":
        from floats_edge.cli.console import TrainingProgress

        with TrainingProgress(name, epochs) as progress:
            yield progress

    def on_trial(self, trial: "Trial") -> None:
        click.echo(f"{trial.variant}, seed {trial.seed}: hypervolume {trial.hypervolume:.0f}", err=True)
