"""Mixup and CutMix: training images made of two, whose targets hold both classes.

Mixup blends the two (Zhang et al., ICLR 2018); CutMix pastes a box of one into the other (Yun et al., ICCV 2019).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import one_hot

from floats_edge.recipe import Data

_Box = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Mixing:
    """How the images of a batch are mixed.

    Attributes:
        mixup: parameter of the Beta distribution that an image's share is drawn from; 0: no mixup.
        cutmix: the same for CutMix. If both are on, chance takes one of them for each batch.
        classes: how many there are.
    """

    mixup: float
    cutmix: float
    classes: int

    def mixed(self, images: Tensor, labels: Tensor, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mix a batch in place.

        The two halves are mixed apart, as FLOAT trains one clean and attacks the other. In each, an image is mixed with
        the one half of that half away: workers who share the batch then find the partners among their own images.

        Args:
            images: float32 ``[N, C, H, W]``.
            labels: int64 ``[N]``.
            chance: draws the kind, the share and the box, which all images of the batch have in common.

        Returns:
            The images, and their targets: probabilities, float32 ``[N, classes]``.
        """
        cut = bool(self.cutmix) and (not self.mixup or bool(chance.integers(2)))
        parameter = self.cutmix if cut else self.mixup
        share = float(chance.beta(parameter, parameter))
        targets = one_hot(labels, self.classes).float()
        if cut:
            (rows, columns), share = _box(images.shape[2], images.shape[3], share, chance)
            for half in images.chunk(2):
                half[:, :, rows, columns] = _partners(half)[:, :, rows, columns]
        else:
            _blend(images, share)
        _blend(targets, share)
        return images, targets


def make_mixing(data: Data, classes: int) -> Mixing | None:
    """The mixing that a recipe asks for; None: images stay as they are."""
    return Mixing(data.mixup, data.cutmix, classes) if data.mixes else None


def _partners(half: Tensor) -> Tensor:
    return half.roll(len(half) // 2, 0)


def _blend(batch: Tensor, share: float) -> None:
    """Leave each of the batch its share, and give it the rest of its partner."""
    for half in batch.chunk(2):
        partners = _partners(half)
        half.mul_(share).add_(partners.mul_(1 - share))


def _box(height: int, width: int, share: float, chance: np.random.Generator) -> tuple[_Box, float]:
    """A box around a random point that leaves about ``share`` of an image, cut at the edges; and what it leaves."""
    sides: list[slice] = []
    for size in (height, width):
        reach = int(size * (1 - share) ** 0.5) // 2
        centre = int(chance.integers(size))
        sides.append(slice(max(centre - reach, 0), min(centre + reach, size)))
    rows, columns = sides
    covered = (rows.stop - rows.start) * (columns.stop - columns.start)
    return (rows, columns), 1 - covered / (height * width)
