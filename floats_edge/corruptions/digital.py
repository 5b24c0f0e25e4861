"""What lenses, scaling and storing do to pictures."""

import io

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from floats_edge.corruptions.blur import Border, smoothed
from floats_edge.preprocessing import picture


def contrast(image: NDArray, chance: Generator, kept: float) -> NDArray:
    """Every value keeps this share of its distance from the mean of its channel."""
    mean = image.mean((1, 2), keepdims=True)
    return mean + kept * (image - mean)


def elastic_transform(image: NDArray, chance: Generator, reach: float, smoothness: float, bend: float) -> NDArray:
    """A random affine map, and then a random smooth displacement of every pixel.

    Args:
        image: ``[C, H, W]``.
        chance: draws both.
        reach: factor of the displacement; it and the others are shares of the shorter side.
        smoothness: deviation of the Gaussian that smooths the displacement.
        bend: how far the affine map moves each of three points.
    """
    height, width = image.shape[1:]
    side = min(height, width)
    column, row, third = width // 2, height // 2, side // 3
    points = np.array([(column + third, column + third, column - third), (row + third, row - third, row - third)])
    there = points + chance.uniform(-bend * side, bend * side, points.shape)
    back = points @ np.linalg.inv(np.vstack((there, np.ones(3))))
    y, x = np.mgrid[:height, :width].astype(float)
    from_x, from_y = np.tensordot(back, np.stack((x, y, np.ones_like(x))), 1)
    bent = _sampled(image, from_x, from_y, "reflect")
    noise = chance.uniform(-1, 1, (2, height, width))
    right, down = reach * side * smoothed(noise, smoothness * side, round(3 * smoothness * side), "symmetric")
    return _sampled(bent, x + right, y + down, "symmetric")


def pixelate(image: NDArray, chance: Generator, share: float) -> NDArray:
    """Fewer pixels: scaled to this share of height and width and back, by Pillow's box filter."""
    made = _picture(image)
    small = made.resize((max(1, int(made.width * share)), max(1, int(made.height * share))), Image.Resampling.BOX)
    return _pixels(small.resize(made.size, Image.Resampling.BOX))


def jpeg_compression(image: NDArray, chance: Generator, quality: int) -> NDArray:
    """Stored as JPEG of this quality by Pillow, colours with half the rows and columns."""
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return _pixels(Image.open(file))


def _picture(image: NDArray) -> Image.Image:
    return picture(np.ascontiguousarray(np.rint(255 * image).astype(np.uint8).transpose(1, 2, 0)))


def _pixels(image: Image.Image) -> NDArray:
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1) / 255


def _sampled(image: NDArray, x: NDArray, y: NDArray, border: Border) -> NDArray:
    """Values of ``[C, H, W]`` at columns ``x`` and rows ``y``, between the nearest pixels in each direction."""

    def nearest(places: NDArray, size: int) -> tuple[list[NDArray], NDArray]:
        before = np.floor(places).astype(int)
        beyond = int(max(-before.min(), before.max() + 2 - size, 0))
        held = np.pad(np.arange(size), beyond, mode=border)
        return [held[before + beyond + step] for step in (0, 1)], places - before

    rows, down = nearest(y, image.shape[1])
    columns, right = nearest(x, image.shape[2])
    above, below = ((1 - right) * image[:, row, columns[0]] + right * image[:, row, columns[1]] for row in rows)
    return (1 - down) * above + down * below
