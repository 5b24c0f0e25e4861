"""Whether an exported network computes what the trained one does, on real images: a gate, not a hope."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.manifest import Parity, Precision
from floats_edge.errors import ParityError
from floats_edge.runtime.base import Images, Logits, Predictor

BATCH = 128
GATES: dict[Precision, tuple[float, float]] = {
    "fp32": (1.0, 1e-4),
    "fp16": (0.995, 2e-2),
    "bf16": (0.99, 3e-2),
    "int8": (0.98, 5e-2),
}
"""Per precision: smallest top-1 agreement, and largest logit error over the range of the reference's logits.

fp32 is the same arithmetic in another order; 98 % for int8 is a requirement. The others are judgements, made when the
errors of small networks on digits were known, not derived from the arithmetic. How far they are from what was measured
(``tools/bench/int8_agreement``: recipe cifar10-small, one seed, mode bound, 512 validation images, the worst of five
lambdas):

    fp16 99.6 %, 5.6e-4    bf16 98.6 %, 3.7e-3    int8 98.2 %, 8.4e-3 (minmax)

So the error gates leave room for deeper networks, and for engines that accumulate in half precision; what they find is
a wrong graph or an overflow. Agreement is the strict gate, and depends on the network as much as on the rounding: this
one is right about half of the time, has many near ties, and its bf16 export can be refused.
"""
_REMEDIES: dict[Precision, str] = {
    "bf16": "export with --precision fp16",
    "int8": "see which layers cost most (--sensitivity --allow-mismatch) and keep them in float32 (--keep-worst N)",
}


def measure_parity(
    engine: Predictor, reference: Predictor, images: Images, lambdas: Sequence[float]
) -> tuple[Parity, ...]:
    """Compare two predictors on ``images`` (float32 ``[N, C, H, W]`` in [0, 1]) at each lambda.

    Raises:
        ParityError: the engine's logits are not finite, as when half precision overflows.
    """
    return tuple(_parity(engine, reference, images, lam) for lam in lambdas)


def check_parity(figures: Sequence[Parity], precision: Precision) -> None:
    """Let figures within the gates of ``precision`` pass.

    Raises:
        ParityError: naming the first lambda whose figures are outside.
    """
    least_agreement, most_error = GATES[precision]
    for parity in figures:
        if parity.top1_agreement < least_agreement or parity.max_error > most_error:
            raise ParityError(
                f"at lambda {parity.lam:g} the exported network agrees with the trained one on "
                f"{100 * parity.top1_agreement:.2f} % of {parity.images} images and differs by up to "
                f"{parity.max_error:.1e} of the logits' range; {precision} must reach {100 * least_agreement:g} % "
                f"and {most_error:.0e}. Nothing was exported.",
                fix=_REMEDIES.get(precision, "export with --precision fp32")
                + ", or train on if the logits are still close to each other",
            )


def _parity(engine: Predictor, reference: Predictor, images: Images, lam: float) -> Parity:
    engine.set_lambda(lam)
    reference.set_lambda(lam)
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    got = np.concatenate([engine.predict(batch) for batch in batches])
    wanted = np.concatenate([reference.predict(batch) for batch in batches])
    if not np.isfinite(got).all():
        raise ParityError(
            f"at lambda {lam:g} the exported network gives logits that are no numbers. Nothing was exported.",
            fix="export with --precision fp32",
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


def logit_errors(got: Logits, wanted: Logits) -> NDArray[np.float32]:
    """Largest absolute error of each image's logits ``[N, classes]``, over the range of those wanted: ``[N]``."""
    return np.abs(got - wanted).max(axis=1) / np.ptp(wanted)


def top1_agreement(got: Logits, wanted: Logits) -> float:
    """Share of images with the same first class."""
    return float((got.argmax(1) == wanted.argmax(1)).mean())
