"""What training images have in common: how often each value stands in their pixels."""

import hashlib
import json
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from floats_edge import __version__
from floats_edge.errors import DataError
from floats_edge.images import CHUNK, Images
from floats_edge.preprocessing import Preprocessing

Histograms = NDArray[np.int64]
"""How many pixels of a channel have each value: ``[C, 256]``."""
Watch = Callable[[int, int], None]
"""Told how many of how many images were read."""


def pixel_histograms(images: Images, watch: Watch = lambda done, total: None) -> Histograms:
    """Count the values of all pixels; every image is read.

    Raises:
        DataError: an image cannot be read.
    """
    histograms = np.zeros((images.shape[0], 256), dtype=np.int64)
    chunk = CHUNK * (os.cpu_count() or 1)
    for start in range(0, len(images), chunk):
        for image in images.at(slice(start, start + chunk)):
            for channel, histogram in zip(image, histograms, strict=True):
                histogram += np.bincount(channel.reshape(-1), minlength=256)
        watch(min(start + chunk, len(images)), len(images))
    return histograms


def channel_statistics(histograms: Histograms) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in units of [0, 1]; exact.

    Raises:
        DataError: a channel has no contrast.
    """
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


def fingerprint(images: Images, preprocessing: Preprocessing) -> str | None:
    """A hash of what decides the pixels of image files, none of which is read; None: they lie in no files.

    Of each file it holds the name, the size, and the times in ns at which its bytes and it itself were changed last.
    Who copies or unpacks may set the first back, but not the second. A folder of them may be moved.
    """
    from PIL import __version__ as pillow

    if images.files is None:
        return None
    facts = [__version__, pillow, preprocessing.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for file in images.files:
        try:
            status = file.stat()
        except OSError:  # whoever reads it says what is wrong
            return None
        fact = (file.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(repr(fact).encode())
    return digest.hexdigest()
