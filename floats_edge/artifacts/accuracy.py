"""Accuracy at one lambda: shares of images with their intervals, and what the images of every class were taken for."""

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator
from typing_extensions import Self

from floats_edge.artifacts.count import Count
from floats_edge.artifacts.reliability import Reliability
from floats_edge.recipe import Lambda, Section

OTHERS = ""
"""Stands among the answers for classes that are not listed one by one; no class has this name."""

Answers = dict[str, dict[str, Annotated[Count, Field(gt=0)]]]
"""A confusion matrix without its zeros: images by true class, then by answer. Only classes that have images are in."""


class Share(Section):
    """A share of images, with its Wilson 95 % interval (Wilson 1927)."""

    count: Count
    total: Annotated[Count, Field(gt=0)]

    @model_validator(mode="after")
    def _part_of_total(self) -> Self:
        if self.count > self.total:
            raise ValueError(f"{self.count} of {self.total} is no share")
        return self

    @property
    def percent(self) -> float:
        return 100.0 * self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound, in percent."""
        z, n, p = 1.959964, self.total, self.count / self.total
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return 100.0 * max(0.0, centre - half), 100.0 * min(1.0, centre + half)


class LambdaResult(Section):
    """Accuracy at one lambda."""

    lam: Lambda
    clean: Share
    robust: Share
    flags: tuple[str, ...] = Field(default=(), description="why AutoAttack doubts that it is reliable here")


class ClassShares(NamedTuple):
    """Of the images of one class, those that are right clean, and those that are right clean and attacked."""

    clean: Share
    robust: Share


class LambdaAnswers(Section):
    """What a network took the images of every class for at one lambda, and how sure it was: shares follow from it."""

    lam: Lambda
    clean_answers: Answers = Field(description="of clean images; '' stands for classes that are not listed singly")
    attacked_answers: Answers = Field(description="of the same images, attacked")
    withstood: dict[str, Count] = Field(
        description="images of each class that were right clean and attacked: what robust accuracy counts"
    )
    clean_reliability: Reliability = Field(description="whether confidence is accuracy, over clean images")
    attacked_reliability: Reliability = Field(description="over the same images, attacked")
    flags: tuple[str, ...] = Field(default=(), description="why AutoAttack doubts that it is reliable here")

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        images = self.images
        if not images or OTHERS in images or not all(images.values()):
            raise ValueError("every row of answers needs a class, and images")
        if images != _totals(self.attacked_answers) or images.keys() != self.withstood.keys():
            raise ValueError("the clean and the attacked images are not the same number in every class")
        for name, total in images.items():
            clean, attacked = self.clean_answers[name].get(name, 0), self.attacked_answers[name].get(name, 0)
            if not max(0, clean + attacked - total) <= self.withstood[name] <= min(clean, attacked):
                raise ValueError(
                    f"of {total} images of {name!r} {clean} are right clean and {attacked} attacked, so "
                    f"{self.withstood[name]} cannot be right both times"
                )
        for what, answers, found in (
            ("clean", self.clean_answers, self.clean_reliability),
            ("attacked", self.attacked_answers, self.attacked_reliability),
        ):
            right = sum(row.get(name, 0) for name, row in answers.items())
            if (found.images, found.right) != (sum(images.values()), right):
                raise ValueError(f"{what}_reliability is not of the images and answers that are counted")
        return self

    @property
    def images(self) -> dict[str, int]:
        """How many there are of each class that has any."""
        return _totals(self.clean_answers)

    @property
    def clean(self) -> Share:
        """Of all images, those that are right clean."""
        return _share((self.clean_answers[name].get(name, 0), total) for name, total in self.images.items())

    @property
    def robust(self) -> Share:
        """Of all images, those that are right clean and attacked."""
        return _share((self.withstood[name], total) for name, total in self.images.items())

    @property
    def by_class(self) -> dict[str, ClassShares]:
        """The same of each class that has images."""
        return {
            name: ClassShares(
                Share(count=self.clean_answers[name].get(name, 0), total=total),
                Share(count=self.withstood[name], total=total),
            )
            for name, total in self.images.items()
        }

    @property
    def macro(self) -> tuple[float, float]:
        """Means of clean and of robust accuracy over classes, in percent: every class counts alike."""
        shares = self.by_class.values()
        return fmean(share.clean.percent for share in shares), fmean(share.robust.percent for share in shares)


def confusions(answers: Answers) -> list[tuple[str, str, int]]:
    """Wrong answers as ``(class, answer, images)``, the most frequent first; those that are not listed are not in."""
    wrong = (
        (name, answer, count)
        for name, row in answers.items()
        for answer, count in row.items()
        if answer not in (name, OTHERS)
    )
    return sorted(wrong, key=lambda cell: (-cell[2], cell[0], cell[1]))


def count_answers(pairs: Mapping[tuple[str, str], int], most: int) -> Answers:
    """Counts of images as rows.

    Args:
        pairs: how many images of a class got an answer, by ``(class, answer)``.
        most: wrong answers that are listed, the most frequent; :data:`OTHERS` stands for what is left in a row.
    """
    rows: Answers = {}
    for (name, answer), count in pairs.items():
        rows.setdefault(name, {})[answer] = count
    for name, answer, count in confusions(rows)[most:]:
        del rows[name][answer]
        rows[name][OTHERS] = rows[name].get(OTHERS, 0) + count
    return rows


def _totals(answers: Answers) -> dict[str, int]:
    return {name: sum(row.values()) for name, row in answers.items()}


def _share(parts: Iterable[tuple[int, int]]) -> Share:
    counts, totals = zip(*parts, strict=True)
    return Share(count=sum(counts), total=sum(totals))
