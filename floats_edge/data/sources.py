"""The data sets that a recipe may name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from floats_edge.data.datasets import Datasets
from floats_edge.data.folder import folder_source, looks_like_images
from floats_edge.data.order import TEST_SEED, permutation
from floats_edge.data.reading import Half, Reading, Source
from floats_edge.errors import DataError, add_extra
from floats_edge.folders import cache_folder
from floats_edge.images import Labels, Pixels, array_images
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe import Data

DIGITS_TEST_IMAGES = 500


Place = str | Path | Datasets | None
"""Where images are; None: where the recipe says."""


def find_source(data: Data, preprocessing: Preprocessing, place: Place, reading: Reading) -> Source:
    """The data set of a recipe.

    Args:
        data: the recipe's choice of images.
        preprocessing: what is done with each: the recipe's, or that of a network which is there already.
        place: where it is, or images in its place.
        reading: what is done about damaged images in a folder.

    Raises:
        DataError: it is not there.
    """
    if isinstance(place, Datasets):
        return place.source(preprocessing)
    root = data.root if place is None else Path(place)
    return _SOURCES[data.dataset](data, preprocessing, None if root is None else root.expanduser(), reading)


def _digits(data: Data, preprocessing: Preprocessing, root: Path | None, reading: Reading) -> Source:
    """Scikit-learn's 1,797 scanned digits, 8x8 with values 0 to 16; 500 of them are the test images."""
    del data, root, reading  # they come with scikit-learn
    with _train_extra():
        from sklearn.datasets import load_digits
    images, target = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = target.astype(np.int64)
    order = permutation(len(labels), TEST_SEED)
    test, train = order[:DIGITS_TEST_IMAGES], order[DIGITS_TEST_IMAGES:]
    return Source(
        names=tuple(str(digit) for digit in range(10)),
        train=lambda: Half(array_images(pixels[train], labels[train], preprocessing)),
        test=lambda _: Half(array_images(pixels[test], labels[test], preprocessing)),
    )


def _torchvision(data: Data, preprocessing: Preprocessing, root: Path | None, reading: Reading) -> Source:
    """One of torchvision's data sets, downloaded on demand."""
    del reading  # none of its images are files of their own
    with _train_extra():
        from torchvision import datasets
    kinds: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
        "cifar10": (datasets.CIFAR10, {"train": True}, {"train": False}),
        "cifar100": (datasets.CIFAR100, {"train": True}, {"train": False}),
        "svhn": (datasets.SVHN, {"split": "train"}, {"split": "test"}),
        "stl10": (datasets.STL10, {"split": "train"}, {"split": "test"}),
    }
    kind, train_split, test_split = kinds[data.dataset]
    folder = root or _download_folder(data.dataset)

    def opened(split: dict[str, Any]) -> Any:
        with _brought(data.dataset, folder):
            return kind(folder, download=True, **split)

    test = opened(test_split)
    return Source(
        names=tuple(getattr(test, "classes", None) or map(str, range(10))),
        train=lambda: Half(array_images(*_torchvision_arrays(opened(train_split)), preprocessing)),
        test=lambda _: Half(array_images(*_torchvision_arrays(test), preprocessing)),
    )


def _imagenette(data: Data, preprocessing: Preprocessing, root: Path | None, reading: Reading) -> Source:
    """Torchvision's Imagenette, downloaded on demand: JPEG files, whose shorter sides have 160 pixels."""
    with _train_extra():
        from torchvision.datasets import Imagenette
    folder = root or _download_folder(data.dataset)
    with _brought(data.dataset, folder):
        test = Imagenette(folder, split="val", size="160px", download=True)
    source = folder_source(folder / "imagenette2-160", preprocessing, reading)
    return replace(source, names=tuple(words[0] for words in test.classes))


@contextmanager
def _brought(dataset: str, folder: Path) -> Iterator[None]:
    """Have a place for a data set that torchvision downloads, and say it if that fails."""
    if looks_like_images(folder):
        raise DataError(
            f"{folder} looks like an image folder, and the recipe's images are {dataset}, which is downloaded.",
            fix="train with -o data.dataset=folder, or name another place for the download with --data-dir",
        )
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError, EOFError, KeyError) as error:  # no network, no room, a damaged or partial archive
        with suppress(OSError):  # something was brought
            for path in made:
                path.rmdir()
        raise DataError(
            f"{dataset} is not in {folder} and could not be brought there: {error}",
            fix=f"connect to the network and run again, empty {folder} if a file there is damaged, "
            f"or name the place where the data set is with --data-dir",
        ) from None


def _download_folder(dataset: str) -> Path:
    cache = cache_folder()
    if cache is None:
        raise DataError(
            f"there is no place to download {dataset} to: this user has no home directory.",
            fix="name one with --data-dir FOLDER, or set XDG_CACHE_HOME",
        )
    return cache / dataset


def _torchvision_arrays(dataset: Any) -> tuple[Pixels, Labels]:
    """Pixels ``[N, 3, H, W]`` and labels: CIFAR keeps ``[N, H, W, 3]`` and ``targets``, the others ``labels``."""
    if hasattr(dataset, "targets"):
        return dataset.data.transpose(0, 3, 1, 2), np.asarray(dataset.targets, dtype=np.int64)
    return dataset.data, np.asarray(dataset.labels, dtype=np.int64)


def _folder(data: Data, preprocessing: Preprocessing, root: Path | None, reading: Reading) -> Source:
    """Images in a folder, or in a list of files."""
    del data
    if root is None:
        raise DataError("the recipe names no image folder.", fix="add --data-dir FOLDER, every time")
    return folder_source(root, preprocessing, reading)


def _given(data: Data, preprocessing: Preprocessing, root: Path | None, reading: Reading) -> Source:
    """A folder of images like those that were handed over in Python."""
    if root is None:
        raise DataError(
            "the images were handed over in Python.",
            fix="hand them over again, with data=floats_edge.Datasets(...), or name a folder of such images with "
            "--data-dir",
        )
    return _folder(data, preprocessing, root, reading)


@contextmanager
def _train_extra() -> Iterator[None]:
    """Name the extra that brings a package that is not installed."""
    try:
        yield
    except ImportError as error:
        raise DataError(f"these images need a package that is not there: {error}.", fix=add_extra("train")) from None


_SOURCES: dict[str, Callable[[Data, Preprocessing, Path | None, Reading], Source]] = {
    "digits": _digits,
    "cifar10": _torchvision,
    "cifar100": _torchvision,
    "svhn": _torchvision,
    "stl10": _torchvision,
    "imagenette": _imagenette,
    "folder": _folder,
    "given": _given,
}
