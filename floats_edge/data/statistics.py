"""What training images have in common."""

import numpy as np

from floats_edge.errors import DataError
from floats_edge.images import Pixels

_CHUNK = 256


def channel_statistics(pixels: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 ``[N, C, H, W]``, in units of [0, 1]; exact, from histograms.

    Raises:
        DataError: a channel has no contrast.
    """
    values = np.arange(256) / 255
    means: list[float] = []
    stds: list[float] = []
    for channel in range(pixels.shape[1]):
        histogram = np.zeros(256, dtype=np.int64)
        for start in range(0, len(pixels), _CHUNK):
            histogram += np.bincount(pixels[start : start + _CHUNK, channel].reshape(-1), minlength=256)
        share = histogram / histogram.sum()
        mean = float(share @ values)
        means.append(mean)
        stds.append(float(np.sqrt(share @ (values - mean) ** 2)))
    if min(stds) == 0:
        raise DataError(
            f"channel {stds.index(0)} has the same value in every pixel of every training image.",
            fix="check the images: there is nothing in them to learn from",
        )
    return tuple(means), tuple(stds)
