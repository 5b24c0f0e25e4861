"""What an engine takes the images of every class for, clean and attacked, counted at each lambda."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from floats_edge.artifacts.accuracy import LambdaAnswers, count_answers
from floats_edge.artifacts.records import MOST_LISTED
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
    flags: dict[str, None] = {}
    for part in parts:
        truth = part.truth.tolist()
        clean.update(zip(truth, part.clean_answers.tolist(), strict=True))
        attacked.update(zip(truth, part.attacked_answers.tolist(), strict=True))
        withstood.update(part.truth[part.withstood].tolist())
        flags |= dict.fromkeys(part.flags)
    return LambdaAnswers(
        lam=lam,
        clean_answers=count_answers(_named(clean, labels), most),
        attacked_answers=count_answers(_named(attacked, labels), most),
        withstood={labels[index]: withstood[index] for index in sorted({index for index, _ in clean})},
        flags=tuple(flags),
    )


def _named(pairs: Counter[tuple[int, int]], labels: Sequence[str]) -> dict[tuple[str, str], int]:
    return {(labels[truth], labels[answer]): count for (truth, answer), count in sorted(pairs.items())}
