"""Weather and light."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from floats_edge.corruptions.blur import moved, zoomed

_LUMINANCE = np.array((0.299, 0.587, 0.114))[:, None, None]
"""Of red, green, blue."""


def snow(
    image: NDArray,
    chance: Generator,
    mean: float,
    spread: float,
    zoom: float,
    threshold: float,
    radius: float,
    deviation: float,
    kept: float,
) -> NDArray:
    """Falling flakes over an image that is whiter than before.

    Args:
        image: ``[C, H, W]``.
        chance: draws the flakes.
        mean: of the normal noise that becomes flakes.
        spread: its deviation.
        zoom: enlargement of the flakes.
        threshold: noise below it is no flake.
        radius: of the flakes' motion, as ``deviation``.
        deviation: see :func:`~floats_edge.corruptions.blur.moved`.
        kept: share of the image that does not become whiter.
    """
    flakes = zoomed(chance.normal(mean, spread, (1, *image.shape[1:])), zoom)
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    flakes = moved(flakes, radius, deviation, chance.uniform(-135, -45))
    grey = (image * _LUMINANCE).sum(0, keepdims=True) if len(image) == 3 else image
    white = kept * image + (1 - kept) * np.maximum(image, 1.5 * grey + 0.5)
    return white + flakes + flakes[:, ::-1, ::-1]


def fog(image: NDArray, chance: Generator, thickness: float, decay: float) -> NDArray:
    """A cloud of this thickness, finer the lower its decay; what is brightest stays so."""
    _, height, width = image.shape
    brightest = image.max()
    cloud = thickness * _plasma(max(height, width), decay, chance)[:height, :width]
    return (image + cloud) * brightest / (brightest + thickness)


def _plasma(size: int, decay: float, chance: Generator) -> NDArray:
    """Random heights from 0 to 1 by the diamond-square algorithm: ``[n, n]``, of the next power of two ≥ ``size``."""
    step = 1 << max(1, (size - 1).bit_length())
    heights, height = np.zeros((step, step)), 100.0

    def jittered(sums: NDArray) -> NDArray:
        return sums / 4 + height * chance.uniform(-height, height, sums.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        sides = corners + np.roll(corners, -1, 0)
        centres = jittered(sides + np.roll(sides, -1, 1))
        heights[half::step, half::step] = centres
        heights[::step, half::step] = jittered(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        heights[half::step, ::step] = jittered(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, height = half, height / decay
    heights -= heights.min()
    return heights / heights.max()


def brightness(image: NDArray, chance: Generator, amount: float) -> NDArray:
    """More light: V of HSV, the largest of red, green and blue, grows by ``amount``, up to 1."""
    value = image.max(0, keepdims=True)
    lighter = np.minimum(value + amount, 1)
    return np.where(value > 0, image * lighter / np.where(value > 0, value, 1), lighter)
