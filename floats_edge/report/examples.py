"""Images that a network got wrong, as pictures inside a page: clean, attacked, and what the attack changed."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.examples import LONGEST_SIDE, Example, Pictures
from floats_edge.artifacts.records import Evaluation
from floats_edge.report.tables import clean

_TINY = 96
"""Pixels below which an image is shown larger than it is, pixel by pixel."""


@dataclass(frozen=True)
class Shot:
    """A picture as a data URI, its name, and what the network said to it; an answer of "" is none."""

    name: str
    source: str
    answer: str = ""
    right: bool = False


@dataclass(frozen=True)
class Card:
    """One image."""

    title: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Group:
    """Images that are wrong in the same way, at the same lambda."""

    title: str
    cards: tuple[Card, ...]
    tiny: bool


def example_words(record: Evaluation) -> str:
    """What the pictures show, for people."""
    assert record.examples is not None, "there is something to show"
    smaller = max(record.examples.height, record.examples.width) == LONGEST_SIDE
    return (
        "A few of the images, spread over the classes, with what the network said to each as it is and attacked. "
        f"Difference: what the attack changed, {_gain(record):.3g} times as strong; grey is no change."
        + (f" Images larger than {LONGEST_SIDE} pixels are shown smaller, which softens the change." if smaller else "")
    )


def example_groups(record: Evaluation, pictures: Pictures) -> tuple[Group, ...]:
    """The examples by lambda and kind; ``pictures`` are uint8 ``[N, 2, C, H, W]``, clean and attacked."""
    assert record.examples is not None, "there is something to show"
    groups: dict[tuple[float, bool], list[Card]] = {}
    for example, (before, after) in zip(record.examples.shown, pictures, strict=True):
        difference = _difference(before, after, _gain(record))
        groups.setdefault((example.lam, example.fooled), []).append(_card(example, before, after, difference))
    tiny = max(pictures.shape[3:]) < _TINY
    return tuple(Group(_title(record, *key, len(cards)), tuple(cards), tiny) for key, cards in groups.items())


def _title(record: Evaluation, lam: float, fooled: bool, shown: int) -> str:
    """What images have in common, and how many of all such images are shown."""
    of = [result for result in record.results if result.lam == lam]
    total = sum(
        result.clean.count - result.robust.count if fooled else result.clean.total - result.clean.count
        for result in of[:1]
    )
    kind = "right when clean, wrong when attacked" if fooled else "wrong when clean already"
    return f"λ = {lam:g}: {kind} ({shown} of {total:,})"


def _card(example: Example, before: NDArray[np.uint8], after: NDArray[np.uint8], difference: NDArray[np.uint8]) -> Card:
    shots = (
        Shot("clean", _data_uri(before), clean(example.clean), example.clean == example.truth),
        Shot("attacked", _data_uri(after), clean(example.attacked), example.attacked == example.truth),
        Shot("difference", _data_uri(difference)),
    )
    return Card(f"{clean(example.truth)}, image {example.image:,}", shots)


def _gain(record: Evaluation) -> float:
    """How much stronger differences are shown: the largest change becomes black or white, if 8 bits hold it at all."""
    return min(0.5 / record.attack.epsilon, 255.0)


def _difference(before: NDArray[np.uint8], after: NDArray[np.uint8], gain: float) -> NDArray[np.uint8]:
    change = after.astype(np.float64) - before
    return np.clip(np.rint(127.5 + gain * change), 0, 255).astype(np.uint8)


def _data_uri(image: NDArray[np.uint8]) -> str:
    """``[C, H, W]`` as a PNG that needs no file."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
