"""A few of the images that an engine gets wrong, kept while all are evaluated: the same ones every time."""

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from floats_edge.artifacts.examples import LONGEST_SIDE, MOST_EXAMPLES, Example, Examples, Pictures, pack_examples
from floats_edge.evaluation.robustness import Judged

_DRAWABLE = (1, 3)
"""Channels of images that can be shown."""


@dataclass(order=True)
class _Kept:
    """An image with its answers; ``rank`` is how many of its class came before it, and where it stands."""

    rank: tuple[int, int]
    example: Example = field(compare=False)
    pictures: Pictures = field(compare=False)


class Gallery:
    """Keeps at most 24 wrong images, of the lowest and of the highest lambda.

    At each of the two, one half became wrong by the attack, the other half was wrong when clean already. The first
    image of every class goes before the second of any.

    Args:
        lambdas: that are evaluated; none: nothing is kept.
        labels: names of the classes.
    """

    def __init__(self, lambdas: Sequence[float], labels: Sequence[str]) -> None:
        ends = sorted({min(lambdas), max(lambdas)}) if lambdas else []
        self._labels = labels
        self._most = MOST_EXAMPLES // (2 * max(1, len(ends)))
        self._kept: dict[tuple[float, bool], list[_Kept]] = {
            (lam, right): [] for lam in ends for right in (True, False)
        }
        self._turns: Counter[tuple[float, bool, int]] = Counter()
        self._seen: Counter[float] = Counter()

    def add(self, lam: float, part: Judged) -> None:
        """Look at the next images at ``lam``."""
        if (lam, True) in self._kept and part.clean.shape[1] in _DRAWABLE:
            for index in np.flatnonzero(~part.withstood).tolist():
                self._offer(lam, part, index)
        self._seen[lam] += len(part.truth)

    def _offer(self, lam: float, part: Judged, index: int) -> None:
        right, truth, place = bool(part.right[index]), int(part.truth[index]), self._seen[lam] + index
        rank = self._turns[lam, right, truth], place
        self._turns[lam, right, truth] += 1
        kept = self._kept[lam, right]
        if len(kept) == self._most and kept[-1].rank < rank:
            return
        answers = (
            self._labels[int(classes[index])] for classes in (part.truth, part.clean_answers, part.attacked_answers)
        )
        named = dict(zip(("truth", "clean", "attacked"), answers, strict=True))
        example = Example(lam=lam, image=place, **named)
        bisect.insort(kept, _Kept(rank, example, _thumbnails(part.clean[index], part.attacked[index])))
        del kept[self._most :]

    def packed(self, name: str) -> tuple[Examples, bytes] | None:
        """What was kept, and the bytes of the PNG ``name`` that shows it; None: nothing was."""
        kept = [one for group in self._kept.values() for one in group]
        if not kept:
            return None
        return pack_examples([one.example for one in kept], np.stack([one.pictures for one in kept]), name)


def _thumbnails(*images: np.ndarray) -> Pictures:
    """Images ``[C, H, W]`` in [0, 1] as 8 bits, together ``[n, C, h, w]``; made smaller where they are large."""
    pixels = np.stack([np.rint(image * 255).astype(np.uint8) for image in images])
    height, width = pixels.shape[2:]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    from PIL import Image

    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack(
        [
            np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in image])
            for image in pixels
        ]
    )
