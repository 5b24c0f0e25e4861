"""What training images have in common."""

import numpy as np

from floats_edge.errors import DataError
from floats_edge.images import Images

_CHUNK = 256


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in units of [0, 1]; exact, from histograms of all pixels.

    Raises:
        DataError: a channel has no contrast, or an image cannot be read.
    """
    histograms = np.zeros((images.shape[0], 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        pixels = images.at(slice(start, start + _CHUNK))
        for channel, histogram in enumerate(histograms):
            histogram += np.bincount(pixels[:, channel].reshape(-1), minlength=256)
    values = np.arange(256) / 255
    means: list[float] = []
    stds: list[float] = []
    for histogram in histograms:
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
