"""The evaluation stage: a run or a bundle becomes a record of its clean and attacked accuracy per lambda."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from floats_edge.artifacts.bundle import is_bundle, open_bundle
from floats_edge.artifacts.checkpoint import open_run
from floats_edge.artifacts.examples import picture_name
from floats_edge.artifacts.files import check_writable, write_atomic, writing
from floats_edge.artifacts.records import Evaluation, Subject, bundle_subject, run_subject, save_record
from floats_edge.data import Place, Reading, load_data, load_test
from floats_edge.errors import ArtifactError, LambdaError, RecipeError
from floats_edge.evaluation import robustness
from floats_edge.evaluation.batch import evaluation_batch
from floats_edge.evaluation.by_class import count_by_class
from floats_edge.evaluation.corruptions import VERSIONS, measure_corruptions
from floats_edge.evaluation.examples import Gallery
from floats_edge.evaluation.transfer import measure_transfer
from floats_edge.float32 import float32_as
from floats_edge.images import ImageKind, Images
from floats_edge.networks.spec import Code
from floats_edge.recipe import Attack, Noise, Recipe
from floats_edge.recipe_file import override_recipe
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
        transfer: also show what was attacked at one lambda to the network at all others.
        corruptions: also show the images under common corruptions, at every lambda.
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
    transfer: bool = False
    corruptions: bool = False
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


@float32_as("ieee")
def evaluate(
    path: str | Path,
    request: EvaluateRequest | None = None,
    data: Place = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    out: str | Path | None = None,
) -> Evaluation:
    """Measure a run folder or a bundle; a bundle as deployed, attacked by gradients of its twin.

    Args:
        path: run folder or bundle.
        request: what to measure; None: what the recipe says, on ONNX Runtime's CPU.
        data: where the recipe's images are, if not where the recipe says; or images in their place.
        progress: told how many (image, lambda) pairs the last batch finished, and of how many in all; an attacked or
            corrupted image is one more.
        out: where to write the evaluation; beside it go pictures of images that the network got wrong. None: nothing
            is written, and no pictures are kept.

    Raises:
        ArtifactError: ``path`` is no valid run or bundle, or has no noise to resample.
        RecipeError: the attack is not valid, or does not go with fresh noise; too many classes at too many lambdas.
        DataError: the images cannot be read, or are not of the network's classes.
        LambdaError: the network does not serve one of the lambdas; one alone has no transfer.
        BackendError: the backend cannot run the bundle.
        NetworkError: the network of a run is of code that the user did not allow to run.
        OutputError: ``out`` cannot be written.
    """
    request = request or EvaluateRequest()
    opened = _open(Path(path), request)
    recipe, engine, labels = opened.recipe, opened.engine, opened.kind.labels
    attack = _attack(recipe, request.attack)
    if request.noise == "resample" and attack.kind != "pgd":
        raise RecipeError(f"fresh noise goes with PGD, not with {attack.kind}.", fix="add --attack pgd")
    if request.transfer and (attack.kind == "autoattack" or request.noise == "resample"):
        raise RecipeError(
            "the transfer between lambdas is measured by PGD, with the noise that is deployed.",
            fix="leave --transfer out, or --attack autoattack and --noise resample",
        )
    if out is not None:
        check_writable(Path(out))
    if isinstance(engine, ResampledPredictor):
        _settle(opened, engine, request, data)
    images = _images(opened, request, data)
    lambdas = request.lambdas or engine.lambdas or recipe.evaluate.lambdas
    if request.transfer and len(lambdas) < 2:
        raise LambdaError(
            "one lambda is evaluated: there is no other to transfer an attack to.", fix="name several lambdas"
        )
    attackers = len(lambdas) + 1 if request.transfer else 0
    pairs = len(images) * (len(lambdas) * (1 + VERSIONS * request.corruptions) + attackers)
    batch = evaluation_batch(recipe.train.batch_size)
    gallery = Gallery(() if out is None else lambdas, labels)

    def judged(lam: float) -> Iterator[robustness.Judged]:
        for part in _judged(opened, request, images, attack, lam):
            gallery.add(lam, part)
            told(len(part.truth))
            yield part

    def told(done: int) -> None:
        progress(done, pairs)

    with engine:
        results = count_by_class(judged, lambdas, labels)
        transfer = corruptions = None
        if request.transfer:
            transfer = measure_transfer(engine, opened.twin, images, lambdas, attack, request.seed, told, batch)
        if request.corruptions:
            colours = opened.kind.preprocessing.colours
            corruptions = measure_corruptions(engine, images, colours, lambdas, request.seed, told, batch)
    record = Evaluation(
        subject=opened.subject,
        backend=engine.backend,
        dataset=recipe.data.dataset,
        split=request.split,
        attack=attack,
        attacked="itself" if engine is opened.twin else f"twin on {opened.twin.backend}",
        noise=request.noise if recipe.method == "float" else None,
        eot=_draws(request),
        seed=request.seed,
        labels=labels,
        results=results,
        transfer=transfer,
        corruptions=corruptions,
        versions={name: version(name) for name in ("floats-edge", "torch", "onnxruntime", "numpy")},
    )
    return record if out is None else _written(record, gallery, Path(out))


def _judged(
    opened: _Opened, request: EvaluateRequest, images: Images, attack: Attack, lam: float
) -> Iterator[robustness.Judged]:
    batch, draws = evaluation_batch(opened.recipe.train.batch_size), _draws(request)
    return robustness.judge(opened.engine, opened.twin, images, lam, attack, request.seed, draws, batch)


def _draws(request: EvaluateRequest) -> int:
    return 1 if request.noise == "frozen" else request.eot


def _settle(opened: _Opened, network: ResampledPredictor, request: EvaluateRequest, data: Place) -> None:
    recipe, reading = opened.recipe, Reading(request.reading.skip_damaged)
    splits = load_data(recipe.data, recipe.seed, data, opened.kind, reading)
    robustness.settle(network, splits.train, recipe.attack, request.seed, evaluation_batch(recipe.train.batch_size))


def _written(record: Evaluation, gallery: Gallery, out: Path) -> Evaluation:
    """Write the pictures first, and then the record that states what they are."""
    picture = out.with_name(picture_name(out))
    packed = gallery.packed(picture.name)
    if packed is None:
        with writing(picture):
            picture.unlink(missing_ok=True)  # of an earlier evaluation
    else:
        examples, data = packed
        write_atomic(picture, data)
        record = record.model_copy(update={"examples": examples})
    save_record(record, out)
    return record


def _images(opened: _Opened, request: EvaluateRequest, data: Place) -> Images:
    recipe = opened.recipe
    if request.split == "test":
        images = load_test(recipe.data, opened.kind, data, request.reading)
    else:
        images = load_data(recipe.data, recipe.seed, data, opened.kind, request.reading).validation
    return images.first(request.images or recipe.evaluate.images)


def _attack(recipe: Recipe, changes: dict[str, object]) -> Attack:
    """The recipe's attack with some of its keys changed."""
    own = {}
    if changes.get("kind") == "autoattack":
        own = {"step": "null", "steps": "null", "restarts": 1, "loss": "cross-entropy"}
    overrides = tuple(f"evaluate.attack.{key}={value}" for key, value in (own | changes).items())
    try:
        return override_recipe(recipe, overrides).evaluate.attack
    except RecipeError as error:
        raise RecipeError(error.what, fix="correct --attack, --epsilon, --steps, --restarts or --loss") from None


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
