"""What an engine takes the images of every class for, clean and attacked, counted at each lambda."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from floats_edge.artifacts.accuracy import LambdaAnswers, count_answers
from floats_edge.artifacts.records import MOST_LISTED
from floats_edge.artifacts.reliability import BINS, Bin, Reliability
from floats_edge.errors import RecipeError
from floats_edge.evaluation.robustness import Judged


def count_by_class(
    judged: Callable[[float], Iterable[Judged]], lambdas: Sequence[float], labels: Sequence[str]
) -> tuple[LambdaAnswers, ...]:
    """Count what ``judged`` gives at each lambda; ``labels`` are the names of the classes.

    Raises:
        RecipeError: so many classes at so many lambdas are more figures than an evaluation holds.
    """
    if len(labels) * len(lambdas) > MOST_LISTED:
        raise RecipeError(
            f"{len(labels)} classes at {len(lambdas)} lambdas are more figures than an evaluation holds.",
            fix=f"evaluate at most {MOST_LISTED // len(labels)} lambdas at once, with --lambda",
        )
    most = MOST_LISTED // (2 * len(lambdas))
    return tuple(_counted(judged(lam), lam, labels, most) for lam in lambdas)


def _counted(parts: Iterable[Judged], lam: float, labels: Sequence[str], most: int) -> LambdaAnswers:
    clean: Counter[tuple[int, int]] = Counter()
    attacked: Counter[tuple[int, int]] = Counter()
    withstood: Counter[int] = Counter()
    clean_bins, attacked_bins = _Bins(), _Bins()
    flags: dict[str, None] = {}
    for part in parts:
        truth = part.truth.tolist()
        clean.update(zip(truth, part.clean_answers.tolist(), strict=True))
        attacked.update(zip(truth, part.attacked_answers.tolist(), strict=True))
        withstood.update(part.truth[part.withstood].tolist())
        clean_bins.add(part.clean_confidence, part.right)
        attacked_bins.add(part.attacked_confidence, part.attacked_answers == part.truth)
        flags |= dict.fromkeys(part.flags)
    return LambdaAnswers(
        lam=lam,
        clean_answers=count_answers(_named(clean, labels), most),
        attacked_answers=count_answers(_named(attacked, labels), most),
        withstood={labels[index]: withstood[index] for index in sorted({index for index, _ in clean})},
        clean_reliability=clean_bins.reliability(),
        attacked_reliability=attacked_bins.reliability(),
        flags=tuple(flags),
    )


@dataclass(frozen=True, eq=False)
class _Bins:
    """Sums over images, by bin of confidence: float64 ``[BINS]``."""

    images: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    right: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        for sums, values in ((self.images, 1), (self.right, right), (self.confidence, confidence)):
            np.add.at(sums, places, values)

    def reliability(self) -> Reliability:
        means = self.confidence / np.maximum(self.images, 1)
        rows = zip(self.images.tolist(), self.right.tolist(), means.tolist(), strict=True)
        return Reliability(bins=tuple(Bin(images=int(n), right=int(right), confidence=mean) for n, right, mean in rows))


def _named(pairs: Counter[tuple[int, int]], labels: Sequence[str]) -> dict[tuple[str, str], int]:
    return {(labels[truth], labels[answer]): count for (truth, answer), count in sorted(pairs.items())}
