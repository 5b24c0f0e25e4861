"""``floats-edge train``: FLOATS-pruned FLOAT training."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from floats_edge.cli.parameters import allow_code


def _print_keys(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from floats_edge.cli.recipe_keys import write_keys

    formatter = ctx.make_formatter()
    write_keys(formatter)
    click.echo(formatter.getvalue(), nl=False)
    ctx.exit()


@click.command()
@click.argument("recipe")
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@click.option(
    "--keys",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_keys,
    help="List every key of a recipe with its default, what it does and what it takes.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME of the recipe]")
@click.option("--resume", is_flag=True, help="Continue the run in the folder: bit for bit as if it had not stopped.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Image folder or list, or where downloads go.")
@click.option("--skip-damaged", is_flag=True, help="Leave out images that are damaged or too thin, and say which.")
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …; auto takes a GPU where one is."
)
@click.option(
    "--memory",
    type=click.IntRange(min=0),
    metavar="MIB",
    help="Images of a split that take no more stay in memory; larger splits are read again in every epoch.  "
    "[default: 1024]",
)
@click.option(
    "--loaders",
    type=click.IntRange(0, 64),
    help="Processes that read images which do not stay in memory.  [default: the CPUs to spare]",
)
@allow_code
def train(
    recipe: str,
    options: tuple[str, ...],
    out: Path | None,
    resume: bool,
    data_dir: Path | None,
    skip_damaged: bool,
    device: str,
    memory: int | None,
    loaders: int | None,
    allow_code: bool,
) -> None:
    """Train one sparse network with a clean/robust knob.

    RECIPE is a YAML file, or the name of one that comes with the package. Any of its keys, which --keys lists, can be
    overridden:

    \b
        floats-edge train quickstart
        floats-edge train cifar10-floats-irregular -o sparsity.density=0.1 -o train.epochs=30
        floats-edge train cifar10-floats-channel -o sparsity.density=0.25
        floats-edge train my.yaml --out runs/mine --resume

    After every epoch the run folder holds a checkpoint, metrics.jsonl and metrics.csv; accuracy is of at most
    512 validation images, robust accuracy under PGD. Next: floats-edge evaluate and floats-edge export, with the run
    folder.

    Several processes, each with its own GPU or cores, share every batch (and the run folder) when torchrun starts them:

    \b
        torchrun --nproc-per-node 2 -m floats_edge train my.yaml
    """
    from floats_edge.cli.console import TrainingProgress, status_console, tell_images
    from floats_edge.cli.devices import torch_device
    from floats_edge.data import Reading
    from floats_edge.recipe_file import load_recipe

    settings = load_recipe(recipe, options)
    torch_name = torch_device(device, settings.train)
    from floats_edge.training import distributed, stage

    folder = out or Path("runs") / settings.name
    with distributed.join(torch_name) as workers, ExitStack() as stack:
        reading, observer = Reading(skip_damaged, loaders=loaders), None
        if memory is not None:
            reading = replace(reading, memory=memory * 2**20)
        if workers.rank == 0:
            reading = replace(reading, tell=tell_images(status_console()))
            observer = stack.enter_context(TrainingProgress(settings.name, settings.train.epochs))
        stage.train(
            settings,
            folder,
            data=data_dir,
            device=torch_name,
            resume=resume,
            allow_code=allow_code,
            reading=reading,
            observer=observer,
            workers=workers,
        )
    if workers.rank == 0:
        click.echo(f"Trained: {folder}")
