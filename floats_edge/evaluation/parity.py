"""Whether an exported network computes what the trained one does, on real images: a gate, not a hope."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.manifest import Parity, Precision
from floats_edge.errors import ParityError
from floats_edge.evaluation.batch import LARGEST_BATCH
from floats_edge.runtime.base import Images, Logits, Predictor


class Gate(NamedTuple):
    """What an exported network must reach; errors are of the logits, over the range of the reference's.

    Attributes:
        agreement: smallest share of images with the same first class.
        max_error: largest error.
        p99_error: largest error that 99 % of the images may have.
    """

    agreement: float
    max_error: float
    p99_error: float = math.inf


GATES: dict[Precision, Gate] = {
    "fp32": Gate(1.0, 1e-4),
    "fp16": Gate(0.995, 2e-2),
    "bf16": Gate(0.95, 3e-2, 2**-7),
    "int8": Gate(0.98, 5e-2),
}
"""fp32 is the same arithmetic in another order; 98 % for int8 is a requirement; fp16's are judgements.

bf16 rounds by up to u = 2^-8. Where the reference's two best classes are closer than that, either may come first, and
how often they are is the network's doing: honest exports agreed on 97.7 to 100 % of images. The errors are the
rounding's doing, and they are judged: within 2 u on 99 % of the images, none of which then changes class unless its
two best are within 4 u. Agreement has only a floor, below which bf16 is not worth having. Measured with bf16 emulated,
at most 512 validation images, the range over five lambdas (``tools/bench/int8_agreement``):

    network                         agreement         p99 error
    resnet8, CIFAR-10, 6 epochs     99.0 to 99.8 %    0.60 to 0.70 u
    resnet8, CIFAR-10, 12 epochs    98.6 to 99.8 %    0.65 to 0.80 u
    resnet8, digits, 20 epochs      99.2 to 100 %     0.72 to 0.94 u
    resnet8, digits, 1 epoch        99.2 to 100 %     1.32 to 1.63 u    (500 test images)
    resnet34, CIFAR-10, 2 epochs    97.7 to 99.2 %    0.66 to 1.11 u
    wrn-40-2, CIFAR-10, 3 epochs    98.6 to 99.8 %    0.66 to 0.95 u

A layer whose weights are 5 % too large is found, whichever it is, in the network that a test tries it with.
The largest errors leave room for deeper networks, and for engines that accumulate in half precision: what they find is
a wrong graph or an overflow. For comparison (``tools/bench/int8_agreement``, cifar10-small, the worst of five lambdas):
fp16 99.6 %, 5.6e-4; int8 98.2 %, 8.4e-3 (minmax).
"""
_REMEDIES: dict[Precision, str] = {
    "bf16": "export with --precision fp16",
    "int8": "see which layers cost most (--sensitivity --allow-mismatch) and keep them out of it (--keep-worst N)",
}


def measure_parity(
    engine: Predictor, reference: Predictor, images: Images, lambdas: Sequence[float], batch: int = LARGEST_BATCH
) -> tuple[Parity, ...]:
    """Compare two predictors on ``images`` (float32 ``[N, C, H, W]`` in [0, 1]), ``batch`` at a time, at each lambda.

    Raises:
        ParityError: the engine's logits are no numbers, as when half precision overflows; or the reference's are none.
    """
    return tuple(_parity(engine, reference, images, lam, batch) for lam in lambdas)


def check_reference(reference: Predictor, images: Images, lambdas: Sequence[float]) -> None:
    """Check that what an export is to be compared with gives logits worth comparing with.

    Raises:
        ParityError: they are no numbers, or all the same.
    """
    for lam in lambdas:
        _reference_logits(reference, images, lam, len(images))


def check_parity(figures: Sequence[Parity], precision: Precision) -> None:
    """Let figures within the gates of ``precision`` pass.

    Raises:
        ParityError: naming the first lambda whose figures are outside.
    """
    gate = GATES[precision]
    for parity in figures:
        if (
            parity.top1_agreement < gate.agreement
            or parity.max_error > gate.max_error
            or parity.p99_error > gate.p99_error
        ):
            most = "" if math.isinf(gate.p99_error) else f", {gate.p99_error:.1e} on 99 % of them"
            raise ParityError(
                f"at lambda {parity.lam:g} the exported network agrees with the trained one on "
                f"{100 * parity.top1_agreement:.2f} % of {parity.images} images and differs by up to "
                f"{parity.max_error:.1e} of the logits' range, {parity.p99_error:.1e} on 99 % of them; "
                f"{precision} must reach {100 * gate.agreement:g} % and {gate.max_error:.0e}{most}.",
                fix=_REMEDIES.get(precision, "export with --precision fp32")
                + ", or train on if the logits are still close to each other",
            )


def _parity(engine: Predictor, reference: Predictor, images: Images, lam: float, batch: int) -> Parity:
    wanted, got = _reference_logits(reference, images, lam, batch), _logits(engine, images, lam, batch)
    if not np.isfinite(got).all():
        raise ParityError(
            f"at lambda {lam:g} the exported network gives logits that are no numbers; the trained one's are.",
            fix="export with --precision fp32; if it is that already, export or build its engine again",
        )
    error = logit_errors(got, wanted)
    return Parity(
        lam=lam,
        backend=engine.backend,
        reference=reference.backend,
        images=len(images),
        top1_agreement=top1_agreement(got, wanted),
        max_error=float(error.max()),
        p99_error=float(np.percentile(error, 99)),
    )


def _reference_logits(reference: Predictor, images: Images, lam: float, batch: int) -> Logits:
    logits = _logits(reference, images, lam, batch)
    with np.errstate(invalid="ignore", over="ignore"):
        extent = np.ptp(logits)
    if not 0 < extent < np.inf:
        raise ParityError(
            f"at lambda {lam:g} the trained network itself gives logits that are no numbers, or all the same: its "
            "weights are no numbers, or far too large.",
            fix="train it again with a lower train.lr or a longer train.warmup, and export that run",
        )
    return logits


def _logits(predictor: Predictor, images: Images, lam: float, batch: int) -> Logits:
    predictor.set_lambda(lam)
    starts = range(0, len(images), batch)
    return np.concatenate([predictor.predict(images[start : start + batch]) for start in starts])


def logit_errors(got: Logits, wanted: Logits) -> NDArray[np.float32]:
    """Largest absolute error of each image's logits ``[N, classes]``, over the range of those wanted: ``[N]``."""
    return np.abs(got - wanted).max(axis=1) / np.ptp(wanted)


def top1_agreement(got: Logits, wanted: Logits) -> float:
    """Share of images with the same first class."""
    return float((got.argmax(1) == wanted.argmax(1)).mean())
