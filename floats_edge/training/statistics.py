"""What training images are normalised by, and the pass over images that do not stay in memory, before the first step.

One worker takes that pass and hands its result to the others. It is taken whatever images are normalised by, as it also
shows which of them are damaged; its result is kept in the user's cache, so an unchanged set of files is read once.
"""

from pathlib import Path

import numpy as np
import torch

from floats_edge.artifacts.cache import cache_file, read_cache, write_cache
from floats_edge.data import Splits, channel_statistics, fingerprint, pixel_histograms
from floats_edge.data.statistics import Histograms, Watch
from floats_edge.errors import RecipeError
from floats_edge.images import Images
from floats_edge.networks.normalize import pretrained_statistics
from floats_edge.networks.spec import ImageSpec, Statistics
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe import Recipe
from floats_edge.training.distributed import ALONE, Workers

MeanAndStd = tuple[tuple[float, ...], tuple[float, ...]]
"""Per channel, in units of [0, 1]."""
_STORED = np.dtype("<i8")


def image_spec(
    recipe: Recipe, splits: Splits, workers: Workers = ALONE, watch: Watch = lambda done, total: None
) -> ImageSpec:
    """What a network that is trained on these images takes.

    Args:
        recipe: says what they are normalised by.
        splits: the images.
        workers: who train together, each calling this.
        watch: told by the first of them how many of how many images were read.

    Raises:
        RecipeError: declared statistics, or those of pretrained weights, are not known or of other images.
        DataError: an image cannot be read, or a channel has no contrast.
        BackendError: a worker was lost.
    """
    images = splits.train
    mean, std = workers.from_first(
        lambda: torch.tensor(_statistics(recipe, images, watch), dtype=torch.float64),
        torch.zeros(2, images.shape[0], dtype=torch.float64),
    ).tolist()
    return ImageSpec(preprocessing=recipe.data.preprocessing.resolved(images.shape), mean=mean, std=std)


def _statistics(recipe: Recipe, images: Images, watch: Watch) -> MeanAndStd:
    known = _known(recipe, images.shape[0])
    if known is not None and images.fit and not recipe.data.resized_crop:
        return known  # all images are read before the first step, to stay in memory
    histograms = _histograms(images, recipe.data.preprocessing, watch)
    return known or channel_statistics(histograms)


def _known(recipe: Recipe, channels: int) -> MeanAndStd | None:
    """Those that need no image; None: they are those of the images."""
    chosen = recipe.data.statistics
    if chosen == "images":
        return None
    if isinstance(chosen, Statistics):
        if len(chosen.mean) != channels:
            raise RecipeError(
                f"data.statistics are of {len(chosen.mean)} channels, and the images have {channels}.",
                fix="give a number for each channel, or choose the channels with data.preprocessing.colours",
            )
        return chosen.mean, chosen.std
    if recipe.model.weights is None and recipe.model.source != "given":
        raise RecipeError(
            "data.statistics is pretrained, and no pretrained weights are named.",
            fix="-o model.weights=FILE; or, to start from random weights: -o data.statistics=images",
        )
    published = pretrained_statistics(recipe.model)
    if published is None or len(published[0]) != channels:
        raise RecipeError(
            f"the published weights of {recipe.model.title} expect no known statistics of {channels} channels.",
            fix="set data.statistics=images",
        )
    return published


def _histograms(images: Images, preprocessing: Preprocessing, watch: Watch) -> Histograms:
    """Of all pixels: counted, or remembered if the same files were counted before."""
    if images.fit:
        return pixel_histograms(images)
    key = fingerprint(images, preprocessing)
    file = None if key is None else cache_file("histograms", key)
    histograms = _remembered(file, images)
    if histograms is None:
        histograms = pixel_histograms(images, watch)
        write_cache(file, histograms.astype(_STORED).tobytes())
    return histograms


def _remembered(file: Path | None, images: Images) -> Histograms | None:
    """Those of a cached file that count every pixel of ``images``."""
    data = read_cache(file)
    channels, height, width = images.shape
    if data is None or len(data) != channels * 256 * _STORED.itemsize:
        return None
    histograms = np.frombuffer(data, _STORED).reshape(channels, 256).astype(np.int64)
    complete = (histograms >= 0).all() and (histograms.sum(1) == len(images) * height * width).all()
    return histograms if complete else None
