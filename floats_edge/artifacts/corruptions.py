"""Common corruptions: how many images are right once noise, blur, weather or storing has changed them."""

import math
from typing import Annotated

from pydantic import Field, model_validator
from typing_extensions import Self

from floats_edge.artifacts.count import Count, Row
from floats_edge.corruptions import SEVERITIES
from floats_edge.recipe import Lambda, Section

_Z = 1.959964


class Corruptions(Section):
    """Of some images, how many are right under every corruption, by severity and lambda; the mean weighs all alike."""

    lambdas: Annotated[tuple[Lambda, ...], Field(min_length=1, max_length=64)]
    images: Annotated[Count, Field(gt=0)]
    right: Annotated[
        dict[str, Annotated[tuple[Row, ...], Field(min_length=len(SEVERITIES), max_length=len(SEVERITIES))]],
        Field(min_length=1, max_length=64, description="images by corruption, then by severity, then by lambda"),
    ]
    together: Annotated[tuple[Row, ...], Field(max_length=64)] = Field(
        description="by two lambdas: the sum over images of a product, of how many corrupted versions of the image are "
        "right at one and at the other; intervals follow from it"
    )

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        rows = [row for severities in self.right.values() for row in severities]
        if len(self.together) != len(self.lambdas) or any(
            len(row) != len(self.lambdas) for row in (*rows, *self.together)
        ):
            raise ValueError("there is not one count for every lambda")
        if max(map(max, rows)) > self.images:
            raise ValueError("more images are right than there are")
        for place, row in enumerate(self.together):
            total = self._total(place)
            if not total**2 <= self.images * row[place] <= self.images * self._versions * total:
                raise ValueError("together: no numbers of right versions have this sum of squares")
            for other, product in enumerate(row):
                if product != self.together[other][place] or product**2 > row[place] * self.together[other][other]:
                    raise ValueError("together: no numbers of right versions have these products")
        return self

    @property
    def _versions(self) -> int:
        """Of each image."""
        return len(self.right) * len(SEVERITIES)

    def _total(self, place: int) -> int:
        return sum(row[place] for severities in self.right.values() for row in severities)

    def accuracy(self, name: str, place: int) -> float:
        """Under one corruption at the lambda at ``place``, the mean over severities, in percent."""
        return 100 * sum(row[place] for row in self.right[name]) / (len(SEVERITIES) * self.images)

    def mean(self, place: int) -> tuple[float, float]:
        """Mean over all corruptions at the lambda at ``place``, and half of its 95 % interval, in percent."""
        return self._interval(self._total(place), self.together[place][place])

    def difference(self, place: int, other: int) -> tuple[float, float]:
        """How far the mean at ``place`` is above that at ``other``, and half of the 95 % interval, in points.

        The interval is of the differences image by image, for the same images are shown at both.
        """
        squares = self.together[place][place] + self.together[other][other] - 2 * self.together[place][other]
        return self._interval(self._total(place) - self._total(other), squares)

    def _interval(self, total: int, squares: int) -> tuple[float, float]:
        """Mean and half of its interval, of figures of images with this sum and this sum of squares."""
        mean = total / self.images
        deviation = math.sqrt(max(0.0, squares / self.images - mean**2))
        scale = 100 / self._versions
        return scale * mean, scale * _Z * deviation / math.sqrt(self.images)
