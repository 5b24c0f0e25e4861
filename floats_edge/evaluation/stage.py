"""The evaluation stage: a run or a bundle becomes a record of its clean and attacked accuracy per lambda."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from floats_edge.artifacts.bundle import is_bundle, open_bundle
from floats_edge.artifacts.checkpoint import open_run
from floats_edge.artifacts.records import Evaluation, Subject, bundle_subject, run_subject
from floats_edge.data import Place, Reading, load_data, load_test
from floats_edge.errors import ArtifactError, RecipeError
from floats_edge.evaluation import robustness
from floats_edge.evaluation.batch import evaluation_batch
from floats_edge.images import ImageKind, Images
from floats_edge.networks.spec import Code
from floats_edge.recipe import Attack, Noise, Recipe, override_recipe
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.base import Predictor
from floats_edge.runtime.torch import (
    OatPredictor,
    ResampledPredictor,
    TorchPredictor,
    resampled_predictor,
    trained_predictor,
)
from floats_edge.runtime.twin import BundleTwin

if TYPE_CHECKING:
    from torch import nn

EOT = 10
"""Draws of resampled noise over which PGD averages a gradient."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What to measure; None is what the recipe says.

    Attributes:
        lambdas: to evaluate; none: those that the network serves, or else the recipe's.
        images: how many.
        split: which images; choices belong on ``validation``.
        attack: by keys of :class:`~floats_edge.recipe.Attack`, what is not as in the recipe.
        noise: the draw that is deployed, or a fresh one for every batch.
        eot: draws of fresh noise over which PGD averages a gradient.
        seed: of random starts and fresh noise.
        backend: that runs a bundle.
        device: on which PyTorch computes the attack.
        reading: how images are read from files.
        allow_code: run what the network source ``python`` names; a bundle needs no code.
        module: the network of a run that was handed over to training.
    """

    lambdas: tuple[float, ...] = ()
    images: int | None = None
    split: Literal["test", "validation"] = "test"
    attack: dict[str, object] = field(default_factory=dict)
    noise: Noise = "frozen"
    eot: int = EOT
    seed: int = 0
    backend: str = "ort-cpu"
    device: str = "cpu"
    reading: Reading = field(default_factory=Reading)
    allow_code: bool = False
    module: "nn.Module | None" = None


@dataclass(frozen=True, eq=False)
class _Opened:
    """What is evaluated: ``engine``, with gradients from ``twin``."""

    subject: Subject
    recipe: Recipe
    kind: ImageKind
    engine: Predictor
    twin: BundleTwin | TorchPredictor | OatPredictor | ResampledPredictor


def evaluate(
    path: str | Path,
    request: EvaluateRequest | None = None,
    data: Place = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Measure a run folder or a bundle; a bundle as deployed, attacked by gradients of its float twin.

    Args:
        path: run folder or bundle.
        request: what to measure; None: what the recipe says, on ONNX Runtime's CPU.
        data: where the recipe's images are, if not where the recipe says; or images in their place.
        progress: told how many (image, lambda) pairs the last batch finished, and of how many in all.

    Raises:
        ArtifactError: ``path`` is no valid run or bundle, or has no noise to resample.
        RecipeError: the attack is not valid, or does not go with fresh noise.
        DataError: the images cannot be read, or are not of the network's classes.
        LambdaError: the network does not serve one of the lambdas.
        BackendError: the backend cannot run the bundle.
        NetworkError: the network of a run is of code that the user did not allow to run.
    """
    request = request or EvaluateRequest()
    opened = _open(Path(path), request)
    recipe, engine, twin = opened.recipe, opened.engine, opened.twin
    attack = _attack(recipe, request.attack)
    if request.noise == "resample" and attack.kind != "pgd":
        raise RecipeError(f"fresh noise goes with PGD, not with {attack.kind}.", fix="add --attack pgd")
    batch, draws = evaluation_batch(recipe), 1 if request.noise == "frozen" else request.eot
    if isinstance(engine, ResampledPredictor):
        reading = Reading(request.reading.skip_damaged)
        splits = load_data(recipe.data, recipe.seed, data, opened.kind, reading)
        robustness.settle(engine, splits.train, recipe.attack, request.seed, batch)
    images = _images(opened, request, data)
    lambdas = request.lambdas or engine.lambdas or recipe.evaluate.lambdas
    with engine:
        told = partial(_told, progress, total=len(images) * len(lambdas))
        results = robustness.evaluate(engine, twin, images, lambdas, attack, request.seed, told, draws, batch)
    return Evaluation(
        subject=opened.subject,
        backend=engine.backend,
        dataset=recipe.data.dataset,
        split=request.split,
        attack=attack,
        attacked="itself" if engine is twin else f"float twin on {twin.backend}",
        noise=request.noise if recipe.method == "float" else None,
        eot=draws,
        seed=request.seed,
        results=results,
        versions={name: version(name) for name in ("floats-edge", "torch", "onnxruntime", "numpy")},
    )


def _told(progress: Callable[[int, int], None], done: int, total: int) -> None:
    progress(done, total)


def _images(opened: _Opened, request: EvaluateRequest, data: Place) -> Images:
    recipe = opened.recipe
    if request.split == "test":
        images = load_test(recipe.data, opened.kind, data, request.reading)
    else:
        images = load_data(recipe.data, recipe.seed, data, opened.kind, request.reading).validation
    return images.first(request.images or recipe.evaluate.images)


def _attack(recipe: Recipe, changes: dict[str, object]) -> Attack:
    """The recipe's attack with some of its keys changed."""
    own = {"step": "null", "steps": 1, "restarts": 1} if changes.get("kind") == "autoattack" else {}
    overrides = tuple(f"evaluate.attack.{key}={value}" for key, value in (own | changes).items())
    try:
        return override_recipe(recipe, overrides).evaluate.attack
    except RecipeError as error:
        raise RecipeError(error.what, fix="correct --attack, --epsilon, --steps or --restarts") from None


def _open(path: Path, request: EvaluateRequest) -> _Opened:
    device, code = request.device, Code(request.allow_code, request.module)
    if is_bundle(path) and request.noise == "resample":
        raise ArtifactError(
            f"{path} is a bundle, which computes with its frozen noise.",
            fix="floats-edge evaluate RUN --noise resample, with the run folder that it was exported from",
        )
    if is_bundle(path):
        bundle = open_bundle(path)
        manifest = bundle.manifest
        engine = open_predictor(bundle, request.backend, (manifest.lam.values or (0.0,))[0])
        kind = ImageKind(manifest.output.labels, manifest.input.preprocessing)
        return _Opened(bundle_subject(bundle), manifest.recipe, kind, engine, BundleTwin(bundle, device))
    run = open_run(path)
    if request.noise == "resample":
        network = resampled_predictor(run, request.seed, device, code)
    else:
        network = trained_predictor(run, device, code)
    kind = ImageKind(run.checkpoint.labels, run.checkpoint.images.preprocessing)
    return _Opened(run_subject(run), run.checkpoint.recipe, kind, network, network)
