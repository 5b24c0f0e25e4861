"""Proof that a bundle is the network that was evaluated: its bytes, its logits, and its accuracy under attack."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from floats_edge.artifacts.accuracy import LambdaResult, Share
from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.manifest import Parity
from floats_edge.artifacts.records import bundle_subject
from floats_edge.artifacts.verification import LambdaProof, Verification
from floats_edge.data import Place, Reading, load_test
from floats_edge.deploy.export import PARITY_IMAGES
from floats_edge.deploy.say import Say, quiet
from floats_edge.errors import BackendError, ParityError, add_extra
from floats_edge.evaluation.batch import evaluation_batch
from floats_edge.evaluation.parity import check_parity, measure_parity
from floats_edge.images import ImageKind, Images
from floats_edge.recipe import Attack
from floats_edge.runtime.backends import library, open_predictor
from floats_edge.runtime.base import Predictor
from floats_edge.runtime.golden import check_golden, read_golden

if TYPE_CHECKING:
    from floats_edge.runtime.twin import BundleTwin

LARGEST_LOSS = 2.0
"""Percentage points of clean or robust accuracy by which an engine may fall short of its twin."""


@dataclass(frozen=True)
class VerifyRequest:
    """How thoroughly to look.

    Attributes:
        backend: what runs the bundle.
        images: test images to attack; parity is measured on those that the export was judged by.
        queries: of the Square attack, per image.
        seed: of the attacks.
        reading: how images are read from files.
    """

    backend: str = "ort-cpu"
    images: int = 200
    queries: int = 200
    seed: int = 0
    reading: Reading = field(default_factory=Reading)


def verify(
    path: str | Path,
    request: VerifyRequest | None = None,
    data: Place = None,
    say: Say = quiet,
) -> Verification:
    """Check hashes, golden outputs, parity with the twin, and accuracy: clean, under replayed PGD, under Square.

    Args:
        path: a bundle.
        request: how thoroughly to look.
        data: where the recipe's images are, if not where the recipe says; or images in their place.
        say: told what is being done.

    Raises:
        ArtifactError: not a bundle, or a file of it is not what was exported; nothing is deserialised before that is
            known.
        DataError: the test images cannot be read, or are not of the network's classes.
        BackendError: the backend cannot run the bundle, or PyTorch, which the twin needs, is missing.
    """
    try:
        from floats_edge.runtime.twin import BundleTwin
    except ImportError as error:
        raise BackendError(
            f"the twin that a bundle is compared with needs PyTorch: {error}.",
            fix=f"{add_extra('train')}, or check the hashes alone with floats-edge inspect",
        ) from None
    request = request or VerifyRequest()
    bundle = open_bundle(Path(path))
    say("checking hashes")
    bundle.files.verify()
    golden = read_golden(bundle)
    manifest = bundle.manifest.without_verdict(request.backend)
    judged_anew = Bundle(bundle.path, manifest)
    recipe, lambdas = manifest.recipe, manifest.lam.values or manifest.recipe.evaluate.lambdas
    kind = ImageKind(manifest.output.labels, manifest.input.preprocessing)
    test = load_test(recipe.data, kind, data, request.reading)
    images = test.first(request.images)
    batch = evaluation_batch(recipe.train.batch_size)
    attack, twin = recipe.evaluate.attack, BundleTwin(bundle)
    parity: tuple[Parity, ...] = ()
    proofs: tuple[LambdaProof, ...] = ()
    with open_predictor(judged_anew, request.backend, lambdas[0]) as engine:
        say("reproducing golden outputs")
        problems = _problems(lambda: check_golden(engine, golden))
        say("comparing with its twin")
        try:
            parity = measure_parity(engine, twin, test.first(PARITY_IMAGES).as_float(), lambdas, batch)
        except ParityError as error:  # its logits are no numbers: there is nothing to attack
            problems.append(error.what)
        else:
            problems += _problems(lambda: check_parity(parity, manifest.precision))
            proofs = _proofs(engine, twin, images, lambdas, attack, request, batch, say)
    return Verification(
        subject=bundle_subject(bundle),
        backend=request.backend,
        library=library(judged_anew, request.backend),
        images=len(images),
        files=len(manifest.files),
        golden_lambdas=manifest.golden.lambdas,
        parity=parity,
        attack=attack,
        queries=request.queries,
        proofs=proofs,
        mismatch=" ".join(manifest.let_pass) or None,
        problems=(*problems, *(problem for proof in proofs for problem in _losses(proof))),
    )


def _proofs(
    engine: Predictor,
    twin: "BundleTwin",
    images: Images,
    lambdas: tuple[float, ...],
    attack: Attack,
    request: VerifyRequest,
    batch: int,
    say: Say,
) -> tuple[LambdaProof, ...]:
    from floats_edge.evaluation import robustness

    say("attacking the twin, and showing the same images to the bundle")
    engine_results, twin_results = (
        robustness.evaluate(judged, twin, images, lambdas, attack, request.seed, batch=batch)
        for judged in (engine, twin)
    )
    say(f"attacking the bundle itself with {request.queries} queries an image")

    def square(lam: float) -> Share:
        return robustness.withstands_square(engine, images, lam, attack.epsilon, request.queries, request.seed, batch)

    return tuple(
        LambdaProof(lam=lam, engine=result, twin=wanted, square=square(lam))
        for lam, result, wanted in zip(lambdas, engine_results, twin_results, strict=True)
    )


def _problems(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except ParityError as error:
        return [error.what]
    return []


def _losses(proof: LambdaProof) -> list[str]:
    """Accuracies of the engine that fall too far short of the twin's."""

    def shortfall(what: str, got: Share, wanted: Share) -> list[str]:
        if wanted.percent - got.percent <= LARGEST_LOSS:
            return []
        return [
            f"at lambda {proof.lam:g} {what} accuracy is {got.percent:.1f} % on the engine and {wanted.percent:.1f} % "
            f"on its twin; {LARGEST_LOSS:g} points may be lost."
        ]

    engine: LambdaResult = proof.engine
    return [
        *shortfall("clean", engine.clean, proof.twin.clean),
        *shortfall("robust", engine.robust, proof.twin.robust),
    ]
