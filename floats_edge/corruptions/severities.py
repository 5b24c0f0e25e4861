"""The common corruptions by name, and how strong each is at severities 1 to 5 (Hendrycks & Dietterich, ICLR 2019).

Images of up to 64 pixels get the parameters of CIFAR-10-C, larger ones those of ImageNet-C (the authors' code,
github.com/hendrycks/robustness). Of their 15 corruptions one is left out: frost needs their photographs of ice. What
else differs: values are rounded to 8 bits, where theirs are cut off, and ImageNet-C's pictures were stored as JPEG of
quality 85 at last. Grey images: every formula applies to the one channel, and JPEG stores no colour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from floats_edge.corruptions.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from floats_edge.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate
from floats_edge.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from floats_edge.corruptions.weather import brightness, fog, snow
from floats_edge.preprocessing import Pixels

SEVERITIES = range(1, 6)
SMALL = 64
"""Longer side of the largest images, in pixels, that get the parameters of CIFAR-10-C."""

_Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Corruption:
    """A corruption, and its parameters by severity.

    Attributes:
        apply: makes an image ``[C, H, W]`` in [0, 1], red first or grey, another one, whose values may leave [0, 1].
        small: for images of up to :data:`SMALL` pixels.
        large: for larger ones.
    """

    apply: Callable[..., NDArray[Any]]
    small: _Rows
    large: _Rows


def _one(*values: float) -> _Rows:
    return tuple((value,) for value in values)


CORRUPTIONS = {
    "gaussian noise": Corruption(gaussian_noise, _one(0.04, 0.06, 0.08, 0.09, 0.1), _one(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot noise": Corruption(shot_noise, _one(500, 250, 100, 75, 50), _one(60, 25, 12, 5, 3)),
    "impulse noise": Corruption(impulse_noise, _one(0.01, 0.02, 0.03, 0.05, 0.07), _one(0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus blur": Corruption(
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass blur": Corruption(
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion blur": Corruption(
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom blur": Corruption(
        zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": Corruption(
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "fog": Corruption(
        fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(brightness, _one(0.05, 0.1, 0.15, 0.2, 0.3), _one(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(contrast, _one(0.75, 0.5, 0.4, 0.3, 0.15), _one(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic transform": Corruption(
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        # Shares of 244 pixels, where the images have 224.
        tuple(
            tuple(244 / 224 * share for share in shares)
            for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
    ),
    "pixelate": Corruption(pixelate, _one(0.95, 0.9, 0.85, 0.75, 0.65), _one(0.6, 0.5, 0.4, 0.3, 0.25)),
    "JPEG compression": Corruption(jpeg_compression, _one(80, 65, 58, 50, 40), _one(25, 18, 15, 10, 7)),
}
"""By name, in the authors' order."""


def corrupted(pixels: Pixels, name: str, severity: int, seed: int, index: int) -> Pixels:
    """An image as a camera would deliver it: uint8 ``[C, H, W]``.

    Args:
        pixels: uint8 ``[C, H, W]``, red first or grey.
        name: one of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        seed: of chance, with the three others: the same image in any batch becomes the same one.
        index: where the image stands among all.
    """
    corruption = CORRUPTIONS[name]
    rows = corruption.small if max(pixels.shape[1:]) <= SMALL else corruption.large
    chance = np.random.default_rng((seed, *name.encode(), severity, index))
    changed = corruption.apply(pixels / 255, chance, *rows[severity - 1])
    return np.rint(255 * changed.clip(0, 1)).astype(np.uint8)
