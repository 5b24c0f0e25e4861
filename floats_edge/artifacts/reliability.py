"""Reliability: whether a network that is 90 % sure is right 90 % of the time (Guo et al., ICML 2017).

Confidence is the largest softmax probability. Images are counted by it in 15 bins of equal width, from which every
figure follows.
"""

import math
from typing import Annotated

from pydantic import Field, model_validator
from typing_extensions import Self

from floats_edge.artifacts.count import Count
from floats_edge.recipe import Section

BINS = 15


class Bin(Section):
    """The images of a range of confidence."""

    images: Count
    right: Count
    confidence: float = Field(ge=0, le=1, description="their mean; 0 if there are none")

    @property
    def gap(self) -> float:
        """Confidence minus accuracy, of the sum over the images: above 0 the network is too sure."""
        return self.images * self.confidence - self.right


class Reliability(Section):
    """How confidence and accuracy go together over some images."""

    bins: Annotated[tuple[Bin, ...], Field(min_length=BINS, max_length=BINS)] = Field(
        description="by rising confidence: bin i holds confidences in (i/15, (i+1)/15]"
    )

    @model_validator(mode="after")
    def _bins_hold_what_they_say(self) -> Self:
        for index, part in enumerate(self.bins):
            if part.right > part.images:
                raise ValueError(f"bin {index}: {part.right} of {part.images} images cannot be right")
            low, high = (index / BINS, (index + 1) / BINS) if part.images else (0.0, 0.0)
            if not low - 1e-6 <= part.confidence <= high + 1e-6:
                raise ValueError(f"bin {index}: a mean confidence of {part.confidence:g} is not in it")
        return self

    @property
    def images(self) -> int:
        return sum(part.images for part in self.bins)

    @property
    def right(self) -> int:
        return sum(part.right for part in self.bins)

    @property
    def overconfidence(self) -> float:
        """In percent: the part of the error where confidence is above accuracy."""
        return 100 * sum(max(part.gap, 0.0) for part in self.bins) / self.images

    @property
    def underconfidence(self) -> float:
        """In percent: the part of the error where confidence is below accuracy."""
        return 100 * sum(max(-part.gap, 0.0) for part in self.bins) / self.images

    @property
    def error(self) -> float:
        """Expected calibration error, in percent: the mean distance of confidence and accuracy."""
        return self.overconfidence + self.underconfidence

    @property
    def by_chance(self) -> float:
        """The error that so few images would show on average if every confidence were true, in percent.

        The mean deviation of a normal distribution with the variance of the number of right ones in each bin.
        """
        spread = (math.sqrt(part.images * part.confidence * (1 - part.confidence)) for part in self.bins)
        return 100 * math.sqrt(2 / math.pi) * sum(spread) / self.images
