"""``floats-edge evaluate``: clean and attacked accuracy over lambda."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from floats_edge.cli.parameters import LambdaValue, allow_code

if TYPE_CHECKING:
    from floats_edge.artifacts.records import Subject
    from floats_edge.images import ImageKind
    from floats_edge.recipe import Attack, Noise, Recipe
    from floats_edge.runtime.base import Predictor
    from floats_edge.runtime.torch import OatPredictor, ResampledPredictor, TorchPredictor
    from floats_edge.runtime.twin import BundleTwin

EOT = 10
"""Draws of resampled noise over which PGD averages a gradient."""


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
    "--noise",
    type=click.Choice(["frozen", "resample"]),
    default="frozen",
    show_default=True,
    help="The draw that is deployed, or a fresh one for every batch.",
)
@click.option(
    "--eot",
    type=click.IntRange(1),
    help=f"Draws that a gradient is averaged over.  [default: {EOT} of --noise resample]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random starts and fresh noise.")
@click.option("--backend", default="ort-cpu", show_default=True, help="Runs a bundle: ort-cpu, ort-cuda, ort-trt, trt.")
@click.option("--device", default="auto", show_default=True, help="Where PyTorch computes the attack.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Image folder or list, or where downloads go.")
@click.option("--skip-damaged", is_flag=True, help="Leave out images that cannot be read, and say which.")
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
    noise: "Noise",
    eot: int | None,
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
    from the float twin, made from its graphs, and the images are replayed on the engine. An attack by PGD alone
    gives an upper bound on robust accuracy; --attack autoattack is far slower and nearer to it.

    With --noise resample the noise of a FLOAT run is drawn anew for every batch, attacked or not, as the literature of
    noise injection evaluates; PGD then averages each gradient over --eot draws. It is not what is deployed.

    \b
        floats-edge evaluate runs/quickstart
        floats-edge evaluate runs/quickstart --noise resample --eot 10
        floats-edge evaluate bundle --lambda 0 --lambda 0.5 --lambda 1 --restarts 3 -o evaluation.json
    """
    from rich.console import Console

    from floats_edge.artifacts.records import Evaluation, save_record
    from floats_edge.cli.console import progress_bar, status_console, tell_images
    from floats_edge.cli.devices import torch_device
    from floats_edge.data import Reading, load_data, load_test
    from floats_edge.report.console import print_records

    torch_name = torch_device(device)
    from floats_edge.evaluate import robustness
    from floats_edge.evaluate.batch import evaluation_batch
    from floats_edge.runtime.torch import ResampledPredictor

    if noise == "frozen" and eot is not None:
        raise click.UsageError("--eot averages over draws of noise: it goes with --noise resample")
    subject, recipe, kind, engine, twin = _open(path, backend, torch_name, noise, seed, allow_code)
    config = _attack(recipe, {"kind": attack, "epsilon": epsilon, "steps": steps, "restarts": restarts})
    if noise == "resample" and config.kind != "pgd":
        raise click.UsageError(f"--noise resample goes with PGD, not with {config.kind}: add --attack pgd")
    batch = evaluation_batch(recipe)
    draws = 1 if noise == "frozen" else eot or EOT
    if isinstance(engine, ResampledPredictor):
        splits = load_data(recipe.data, recipe.seed, data_dir, kind, Reading(skip_damaged))
        robustness.settle(engine, splits.train, recipe.attack, seed, batch)
    reading = Reading(skip_damaged, tell_images(status_console()))
    if split == "test":
        chosen = load_test(recipe.data, kind, data_dir, reading)
    else:
        chosen = load_data(recipe.data, recipe.seed, data_dir, kind, reading).validation
    chosen = chosen.first(images or recipe.evaluate.images)
    values = lambdas or engine.lambdas or recipe.evaluate.lambdas
    with engine, progress_bar("images") as bar:
        task = bar.add_task(f"evaluate {path}", total=len(chosen) * len(values))
        progress = partial(bar.advance, task)
        results = robustness.evaluate(engine, twin, chosen, values, config, seed, progress, draws, batch)
    record = Evaluation(
        subject=subject,
        backend=engine.backend,
        dataset=recipe.data.dataset,
        split=split,
        attack=config,
        attacked="itself" if engine is twin else f"float twin on {twin.backend}",
        noise=noise if recipe.method == "float" else None,
        eot=draws,
        seed=seed,
        results=results,
        versions=_versions(),
    )
    save_record(record, out)
    print_records([record], Console(highlight=False))
    for result in results:
        for flag in result.flags:
            click.echo(f"AutoAttack at lambda {result.lam:g}: {flag}", err=True)
    click.echo(f"Written to {out}")


def _attack(recipe: "Recipe", given: dict[str, object]) -> "Attack":
    """The recipe's attack with the options that were given."""
    from floats_edge.errors import RecipeError
    from floats_edge.recipe import override_recipe

    own = {"step": "null", "steps": 1, "restarts": 1} if given["kind"] == "autoattack" else {}
    wanted = own | {key: value for key, value in given.items() if value is not None}
    overrides = tuple(f"evaluate.attack.{key}={value}" for key, value in wanted.items())
    try:
        return override_recipe(recipe, overrides).evaluate.attack
    except RecipeError as error:
        raise RecipeError(error.what, fix="correct --attack, --epsilon, --steps or --restarts") from None


def _open(
    path: Path, backend: str, device: str, noise: "Noise", seed: int, may_import: bool
) -> "tuple[Subject, Recipe, ImageKind, Predictor, BundleTwin | TorchPredictor | OatPredictor | ResampledPredictor]":
    """What to evaluate, its recipe, which images it takes, what runs it, and where gradients come from."""
    from floats_edge.artifacts.bundle import is_bundle, open_bundle
    from floats_edge.artifacts.checkpoint import open_run
    from floats_edge.artifacts.records import bundle_subject, run_subject
    from floats_edge.errors import ArtifactError
    from floats_edge.images import ImageKind
    from floats_edge.runtime.backends import open_predictor
    from floats_edge.runtime.torch import resampled_predictor, trained_predictor
    from floats_edge.runtime.twin import BundleTwin

    if is_bundle(path) and noise == "resample":
        raise ArtifactError(
            f"{path} is a bundle, which computes with its frozen noise.",
            fix="floats-edge evaluate RUN --noise resample, with the run folder that it was exported from",
        )
    if is_bundle(path):
        bundle = open_bundle(path)
        lam = (bundle.manifest.lam.values or (0.0,))[0]
        engine = open_predictor(bundle, backend, lam)
        kind = ImageKind(bundle.manifest.output.labels, bundle.manifest.input.shape)
        return bundle_subject(bundle), bundle.manifest.recipe, kind, engine, BundleTwin(bundle, device)
    run = open_run(path)
    if noise == "resample":
        network = resampled_predictor(run, seed, device, may_import)
    else:
        network = trained_predictor(run, device, may_import)
    kind = ImageKind(run.checkpoint.labels, run.checkpoint.images.shape)
    return run_subject(run), run.checkpoint.recipe, kind, network, network


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("floats-edge", "torch", "onnxruntime", "numpy")}
