"""``floats-edge evaluate``: clean and attacked accuracy over lambda."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from floats_edge.cli.parameters import LambdaValue, allow_code

if TYPE_CHECKING:
    from floats_edge.recipe import Noise


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--lambda", "lambdas", multiple=True, type=LambdaValue(), help="A lambda to evaluate; repeat for several."
)
@click.option("--images", type=click.IntRange(1), help="Images to use.  [default: the recipe's]")
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@click.option("--attack", type=click.Choice(["pgd", "autoattack"]), help="The attack.  [default: the recipe's]")
@click.option("--epsilon", help="Largest change of a pixel, such as 8/255.  [default: the recipe's]")
@click.option("--steps", type=click.IntRange(1), help="PGD steps.  [default: the recipe's]")
@click.option("--restarts", type=click.IntRange(1), help="Random restarts of PGD.  [default: the recipe's]")
@click.option(
    "--loss",
    type=click.Choice(["cross-entropy", "margin"]),
    help="What PGD climbs; margin: the lead of another class, a second opinion.  [default: the recipe's]",
)
@click.option(
    "--noise",
    type=click.Choice(["frozen", "resample"]),
    default="frozen",
    show_default=True,
    help="The draw that is deployed, or a fresh one for every batch.",
)
@click.option(
    "--eot",
    type=click.IntRange(1),
    help="Draws that a gradient is averaged over.  [default: 10, of --noise resample]",
)
@click.option("--transfer", is_flag=True, help="Also show what is attacked at one lambda to the network at the others.")
@click.option("--corruptions", is_flag=True, help="Also show the images with noise, blur, weather and the like.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is drawn.")
@click.option("--backend", default="ort-cpu", show_default=True, help="Runs a bundle: ort-cpu, ort-cuda, ort-rtx, trt.")
@click.option("--device", default="auto", show_default=True, help="Where PyTorch computes the attack.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Image folder or list, or where downloads go.")
@click.option("--skip-damaged", is_flag=True, help="Leave out images that are damaged or too thin, and say which.")
@allow_code
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), default="evaluation.json", show_default=True
)
def evaluate(
    path: Path,
    lambdas: tuple[float, ...],
    images: int | None,
    split: Literal["test", "validation"],
    attack: str | None,
    epsilon: str | None,
    steps: int | None,
    restarts: int | None,
    loss: str | None,
    noise: "Noise",
    eot: int | None,
    transfer: bool,
    corruptions: bool,
    seed: int,
    backend: str,
    device: str,
    data_dir: Path | None,
    skip_damaged: bool,
    allow_code: bool,
    out: Path,
) -> None:
    """Measure clean and PGD accuracy per lambda, of a run folder or of an exported bundle.

    PATH is the folder that train or export wrote. A bundle is evaluated as deployed: the attack takes its gradients
    from its twin, the same network in float32, and the images are replayed on the engine. An attack by PGD alone
    gives an upper bound on robust accuracy; --attack autoattack is far slower and finds more; --loss margin
    --restarts 5 is a cheaper second opinion. Beside the output goes a PNG with up to 24 images that the network
    got wrong, which floats-edge report shows in its page.

    With --noise resample the noise of a FLOAT run is drawn anew for every batch, attacked or not, as the literature of
    noise injection evaluates; PGD then averages each gradient over --eot draws. It is not what is deployed.

    --transfer tells what an attacker can do who does not know the lambda that is served, or believes it is another: it
    attacks at every lambda and on all at once, and says if any attack beats the one at the lambda that is served.

    --corruptions tells how the network stands what cameras meet: 14 kinds of noise, blur, weather and storing, each at
    five severities, which takes 70 forward passes of every image at every lambda and no attack.

    \b
        floats-edge evaluate runs/quickstart
        floats-edge evaluate runs/quickstart --transfer --corruptions
        floats-edge evaluate runs/quickstart --noise resample --eot 10
        floats-edge evaluate bundle --lambda 0 --lambda 0.5 --lambda 1 --restarts 3 -o evaluation.json
    """
    from rich.console import Console

    from floats_edge.cli.console import progress_bar, status_console, tell_images
    from floats_edge.cli.devices import torch_device
    from floats_edge.data import Reading
    from floats_edge.report.classes import class_remark
    from floats_edge.report.console import print_tables
    from floats_edge.report.corruptions import corruption_tables
    from floats_edge.report.tables import evaluation_tables, label_records
    from floats_edge.report.transfer import transfer_tables

    torch_name = torch_device(device)
    from floats_edge.evaluation import stage

    if noise == "frozen" and eot is not None:
        raise click.UsageError("--eot averages over draws of noise: it goes with --noise resample")
    if noise == "resample" and attack not in (None, "pgd"):
        raise click.UsageError(f"--noise resample goes with PGD, not with {attack}: add --attack pgd")
    changes = {"kind": attack, "epsilon": epsilon, "steps": steps, "restarts": restarts, "loss": loss}
    request = stage.EvaluateRequest(
        lambdas=lambdas,
        images=images,
        split=split,
        attack={key: value for key, value in changes.items() if value is not None},
        noise=noise,
        eot=eot or stage.EOT,
        transfer=transfer,
        corruptions=corruptions,
        seed=seed,
        backend=backend,
        device=torch_name,
        reading=Reading(skip_damaged, tell_images(status_console())),
        allow_code=allow_code,
    )
    with progress_bar() as bar:
        task = bar.add_task(f"evaluate {path}", total=None, unit="images")

        def progress(done: int, total: int) -> None:
            bar.update(task, advance=done, total=total)

        record = stage.evaluate(path, request, data_dir, progress, out)
    content = label_records([record])
    tables = (*evaluation_tables(content), *transfer_tables(content), *corruption_tables(content))
    print_tables(tables, Console(highlight=False))
    if (remark := class_remark(record)) is not None:
        click.echo(remark)
    for result in record.results:
        for flag in result.flags:
            click.echo(f"AutoAttack at lambda {result.lam:g}: {flag}", err=True)
    pictures = (
        "" if record.examples is None else f", with the report's pictures of wrong answers in {record.examples.file}"
    )
    click.echo(f"Written to {out}{pictures}")
