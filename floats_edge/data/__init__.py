"""Images and their splits: the validation split is cut from the training images, the test images are left alone."""

from floats_edge.data.datasets import Datasets
from floats_edge.data.load import Splits, load_data, load_test
from floats_edge.data.reading import Reading
from floats_edge.data.sources import Place
from floats_edge.data.statistics import channel_statistics, fingerprint, pixel_histograms

__all__ = [
    "Datasets",
    "Place",
    "Reading",
    "Splits",
    "channel_statistics",
    "fingerprint",
    "load_data",
    "load_test",
    "pixel_histograms",
]
