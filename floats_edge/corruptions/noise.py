"""Noise of sensors and of transmission."""

from numpy.random import Generator
from numpy.typing import NDArray


def gaussian_noise(image: NDArray, chance: Generator, deviation: float) -> NDArray:
    """Normal noise, as in dim light."""
    return image + chance.normal(0, deviation, image.shape)


def shot_noise(image: NDArray, chance: Generator, photons: float) -> NDArray:
    """Poisson noise of light that comes in ``photons`` quanta where the image is white."""
    return chance.poisson(image * photons) / photons


def impulse_noise(image: NDArray, chance: Generator, amount: float) -> NDArray:
    """Salt and pepper: this share of the values becomes 0 or 1, both alike likely."""
    hit, noisy = chance.random(image.shape) <= amount, image.copy()
    noisy[hit] = chance.random(hit.sum()) <= 0.5
    return noisy
