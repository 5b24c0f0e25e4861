"""Blur of lenses, glass and motion."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.nn.functional import interpolate

Border = Literal["edge", "reflect", "symmetric"]
"""What lies beyond the edges of an image: as ``mode`` of :func:`numpy.pad` has it."""


def defocus_blur(image: NDArray, chance: Generator, radius: float, softness: float) -> NDArray:
    """The mean over a disc of ``radius`` pixels, whose rim is softened by a Gaussian of deviation ``softness``."""
    reach = max(8, math.ceil(radius))
    steps = np.arange(-reach, reach + 1) ** 2
    disc = (steps + steps[:, None] <= radius**2).astype(float)
    disc = smoothed(disc[None] / disc.sum(), softness, 1 if radius <= 8 else 2, "reflect")[0]
    outside = int(np.flatnonzero(disc.any(0))[0])
    disc, reach = disc[outside : len(disc) - outside, outside : len(disc) - outside], reach - outside
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    shape = padded.shape[1:]
    return np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(disc, shape), shape)[:, 2 * reach :, 2 * reach :]


def glass_blur(image: NDArray, chance: Generator, deviation: float, distance: int, passes: int) -> NDArray:
    """Every pixel takes the value of one up to ``distance`` away, one pixel after another, between two Gaussians.

    The authors' code means to exchange the two pixels, but copies one, and so do the images that they publish.
    """
    channels, height, width = image.shape
    rows, columns = np.arange(height - distance, distance, -1), np.arange(width - distance, distance, -1)
    places = (rows[:, None] * width + columns).ravel()
    source = list(range(height * width))
    for _ in range(passes):
        down, right = chance.integers(-distance, distance, (2, len(places)))
        for place, other in zip(places.tolist(), (places + down * width + right).tolist(), strict=True):
            source[place] = source[other]
    reach = round(4 * deviation)
    soft = smoothed(image, deviation, reach, "edge")
    return smoothed(soft.reshape(channels, -1)[:, source].reshape(image.shape), deviation, reach, "edge")


def motion_blur(image: NDArray, chance: Generator, radius: float, deviation: float) -> NDArray:
    """A camera that moves in a direction up to 45 degrees from horizontal."""
    return moved(image, radius, deviation, chance.uniform(-45, 45))


def zoom_blur(image: NDArray, chance: Generator, stop: float, step: float) -> NDArray:
    """A camera that comes nearer: the mean over enlargements from 1 to ``stop``."""
    factors = np.arange(1, stop, step)
    return (image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1)


def smoothed(image: NDArray, deviation: float, reach: int, border: Border) -> NDArray:
    """Gaussian blur.

    Args:
        image: ``[C, H, W]``.
        deviation: in pixels.
        reach: pixels in each direction after which the Gaussian is cut off.
        border: what lies beyond the edges.
    """
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-9)) ** 2)
    weights /= weights.sum()

    def matrix(size: int) -> NDArray:
        places, found = np.pad(np.arange(size), reach, mode=border), np.zeros((size, size))
        for shift, weight in enumerate(weights):
            found[np.arange(size), places[shift : shift + size]] += weight
        return found

    return matrix(image.shape[1]) @ image @ matrix(image.shape[2]).T


def moved(image: NDArray, radius: float, deviation: float, angle: float) -> NDArray:
    """Motion blur as ImageMagick's MotionBlurImage: half a Gaussian, along a line of whole pixels.

    Args:
        image: ``[C, H, W]``; beyond its edges lie the pixels of the edges.
        radius: half the length of the line, in pixels.
        deviation: of the Gaussian, in pixels.
        angle: of the line, in degrees, clockwise from the right.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-0.5 * (steps / deviation) ** 2)
    towards, reach = math.radians(angle), len(steps)
    down, right = (np.ceil(steps * part - 0.5).astype(int) + reach for part in (math.sin(towards), math.cos(towards)))
    padded, blurred = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="edge"), np.zeros_like(image)
    _, height, width = image.shape
    for weight, top, left in zip(weights / weights.sum(), down, right, strict=True):
        blurred += weight * padded[:, top : top + height, left : left + width]
    return blurred


def zoomed(image: NDArray, factor: float) -> NDArray:
    """The middle of ``[C, H, W]`` enlarged, by interpolation between the two nearest pixels in each direction."""
    size = image.shape[1:]
    cut = [math.ceil(side / factor) for side in size]
    grown = [round(side * factor) for side in cut]
    middle = torch.from_numpy(image[(slice(None), *map(_middle, size, cut))])
    large = interpolate(middle[None], grown, mode="bilinear", align_corners=True)[0].numpy()
    return large[(slice(None), *map(_middle, grown, size))]


def _middle(size: int, kept: int) -> slice:
    start = (size - kept) // 2
    return slice(start, start + kept)
