"""Images and their splits: the validation split is cut from the training images, the test images are left alone.

Every order is a pure function of a seed, so one recipe gives the same arrays everywhere. The test images are shuffled
with a fixed seed: the first n of them are the same random n in every evaluation, whatever the recipe says.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floats_edge.errors import DataError
from floats_edge.folders import cache_folder
from floats_edge.images import ImageKind, Images, Indices, Labels, Pixels, Shape, array_images, drawn
from floats_edge.recipe import Data

SUFFIXES = (".jpg", ".jpeg", ".png")
TEST_SEED = 0
DIGITS_TEST_IMAGES = 500
_CHUNK = 256
_LAYOUT = "an image folder holds train/<class>/*.jpg|jpeg|png and test/<class>/…; point --data-dir or data.root at it"


@dataclass(frozen=True, eq=False)
class Splits:
    """The three splits of a data set, and its class names."""

    train: Images
    validation: Images
    test: Images
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Source:
    """A data set, whose halves are looked for when they are asked for.

    Attributes:
        names: of the classes.
        train: gives the images to train on.
        test: gives the images to test on; told the shape they must have, None for any that all of them have.
    """

    names: tuple[str, ...]
    train: Callable[[], Images]
    test: Callable[[Shape | None], Images]


def load_data(data: Data, seed: int, data_dir: Path | None = None, kind: ImageKind | None = None) -> Splits:
    """Find the images of a data set and split them.

    Args:
        data: the recipe's choice of images.
        seed: decides which training images are held out and which are left out; the test images do not depend on it.
        data_dir: the image folder, or where a data set is downloaded to; it stands in for ``data.root``.
        kind: what the network takes that the images are for; None: it is yet to be trained on them.

    Raises:
        DataError: the images are missing, too few to split, or not of that kind; what is wrong with a single one of a
            folder is found when it is read.
    """
    source = _source(data, data_dir)
    train = source.train()
    if kind is not None:
        kind.check(source.names, train)
    order = _permutation(len(train), seed)
    held_out, kept = _split_sizes(len(order), data)
    return Splits(
        train=train.take(order[held_out : held_out + kept]),
        validation=train.take(order[:held_out]),
        test=_shuffled(source.test(train.shape)),
        labels=source.names,
    )


def load_test(data: Data, kind: ImageKind, data_dir: Path | None = None) -> Images:
    """Find the test images of a data set, for a network that takes images of ``kind``; no others need be there.

    They are those of :func:`load_data`, in the same order.

    Args:
        data: the recipe's choice of images.
        kind: what the network takes.
        data_dir: as for :func:`load_data`.

    Raises:
        DataError: the images are missing or not of that kind.
    """
    source = _source(data, data_dir)
    images = source.test(None)
    kind.check(source.names, images)
    return _shuffled(images)


def _source(data: Data, data_dir: Path | None) -> _Source:
    root = data_dir or data.root
    return _SOURCES[data.dataset](data, None if root is None else root.expanduser())


def _shuffled(test: Images) -> Images:
    return test.take(_permutation(len(test), TEST_SEED))


def _permutation(count: int, seed: int) -> Indices:
    """``0 .. count - 1`` shuffled by raw Philox words, which are the same in every version of NumPy."""
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")


def _split_sizes(images: int, data: Data) -> tuple[int, int]:
    """How many of the training images go to validation and how many remain to train on."""
    held_out = round(images * data.validation)
    left = images - held_out
    if held_out == 0 or left == 0:
        raise DataError(
            f"a validation share of {data.validation:g} splits {images} training images into {left} and {held_out}.",
            fix="choose data.validation so that both parts hold images, or add images",
        )
    if data.train_images is not None and data.train_images > left:
        raise DataError(
            f"the recipe trains on {data.train_images} images, but {left} are there once {held_out} are held out.",
            fix=f"lower it: -o data.train_images={left}, or -o data.train_images=null for all",
        )
    return held_out, data.train_images or left


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


def _digits(data: Data, root: Path | None) -> _Source:
    """Scikit-learn's 1,797 scanned digits, 8x8 with values 0 to 16; 500 of them are the test images."""
    del root  # they come with scikit-learn
    with _train_extra():
        from sklearn.datasets import load_digits
    images, target = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = target.astype(np.int64)
    order = _permutation(len(labels), TEST_SEED)
    test, train = order[:DIGITS_TEST_IMAGES], order[DIGITS_TEST_IMAGES:]
    return _Source(
        names=tuple(str(digit) for digit in range(10)),
        train=lambda: array_images(pixels[train], labels[train], data.image_size),
        test=lambda _: array_images(pixels[test], labels[test], data.image_size),
    )


def _torchvision(data: Data, root: Path | None) -> _Source:
    """One of torchvision's data sets, downloaded on demand."""
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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return kind(folder, download=True, **split)
        except (OSError, RuntimeError, EOFError) as error:  # no network, no room, a damaged or half-downloaded archive
            raise DataError(
                f"{data.dataset} is not in {folder} and could not be brought there: {error}",
                fix=f"connect to the network and run again, empty {folder} if a file there is damaged, "
                f"or name the place where the data set is with --data-dir",
            ) from None

    test = opened(test_split)
    return _Source(
        names=tuple(getattr(test, "classes", None) or map(str, range(10))),
        train=lambda: array_images(*_torchvision_arrays(opened(train_split)), data.image_size),
        test=lambda _: array_images(*_torchvision_arrays(test), data.image_size),
    )


def _download_folder(dataset: str) -> Path:
    cache = cache_folder()
    if cache is None:
        raise DataError(
            f"there is no place to download {dataset} to: this user has no home directory.",
            fix="name one with --data-dir FOLDER or -o data.root=FOLDER, or set XDG_CACHE_HOME",
        )
    return cache / dataset


def _torchvision_arrays(dataset: Any) -> tuple[Pixels, Labels]:
    """Pixels ``[N, 3, H, W]`` and labels: CIFAR keeps ``[N, H, W, 3]`` and ``targets``, the others ``labels``."""
    if hasattr(dataset, "targets"):
        return dataset.data.transpose(0, 3, 1, 2), np.asarray(dataset.targets, dtype=np.int64)
    return dataset.data, np.asarray(dataset.labels, dtype=np.int64)


def _folder(data: Data, root: Path | None) -> _Source:
    """``root/train/<class>/*.jpg|jpeg|png`` and the same under ``root/test`` or ``root/val``; grey becomes RGB.

    Either half may be missing as long as nobody asks for it; the classes are those to train on, if these are there.
    """
    if root is None:
        raise DataError("the recipe names no image folder.", fix="add --data-dir FOLDER or -o data.root=FOLDER")
    train = root / "train"
    test = root / "val" if not (root / "test").is_dir() and (root / "val").is_dir() else root / "test"
    names = _class_names(train if train.is_dir() else test)
    size = None if data.image_size is None else (data.image_size, data.image_size)
    with _train_extra():
        from PIL import Image  # noqa: F401 - so that the readers below cannot fail for want of it
    return _Source(
        names=names,
        train=lambda: _folder_to_train_on(train, size),
        test=lambda shape: _folder_to_test_on(test, names, size, shape),
    )


def _folder_to_train_on(folder: Path, size: tuple[int, int] | None) -> Images:
    names = _class_names(folder)
    if len(names) < 2:
        raise DataError(f"{folder} holds one class only: {', '.join(names)}.", fix=_LAYOUT)
    files, labels = _class_files(folder, names)
    return _file_images(files, labels, _decode(files[0], size).shape, size)


def _folder_to_test_on(
    folder: Path, names: tuple[str, ...], size: tuple[int, int] | None, shape: Shape | None
) -> Images:
    """The images of those classes among ``names`` that are there."""
    found = _class_names(folder)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(
            f"{folder} holds a class that {folder.with_name('train')} does not: {', '.join(unknown)}.",
            fix="give every class images to train on, or remove it from the test images",
        )
    files, labels = _class_files(folder, found)
    labels = np.array([names.index(name) for name in found])[labels]
    return _file_images(files, labels, shape or _decode(files[0], size).shape, size)


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}.", fix=_LAYOUT)
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise DataError(f"{folder} holds no class folder.", fix=_LAYOUT)
    return names


def _class_files(folder: Path, names: tuple[str, ...]) -> tuple[list[Path], Labels]:
    """The images of each class in the order of ``names``, sorted by file name, and their labels."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
        if not found:
            raise DataError(
                f"the class folder {folder / name} holds no image ({', '.join(SUFFIXES)}).",
                fix="put images of that class there, or remove the folder",
            )
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64)


def _file_images(files: list[Path], labels: Labels, shape: tuple[int, ...], size: tuple[int, int] | None) -> Images:
    """Images in files, each decoded to ``shape``, ``(3, H, W)``."""

    def draw(file: Path) -> Pixels:
        image = _decode(file, size)
        if image.shape != shape:
            raise DataError(
                f"{file} is {image.shape[2]}x{image.shape[1]} pixels, other images are {shape[2]}x{shape[1]}.",
                fix="resize all of them while reading: -o data.image_size=PIXELS",
            )
        return image

    return Images(labels, lambda indices: drawn(len(indices), shape, lambda i: draw(files[indices[i]])))


def _decode(file: Path, size: tuple[int, int] | None) -> Pixels:
    """One image file as uint8 ``[3, H, W]``, resized bilinearly to ``size`` (height, width) unless None."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file} has more than 8 bits per channel.", fix="convert it to 8 bits, or remove it")
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the image {file} cannot be read: {error}.", fix="replace or remove that file") from None
    if size is not None and (rgb.height, rgb.width) != size:
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(rgb).transpose(2, 0, 1)


@contextmanager
def _train_extra() -> Iterator[None]:
    """Name the extra that brings a package that is not installed."""
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"these images need a package that is not there: {error}.", fix="pip install 'floats-edge[train]'"
        ) from None


_SOURCES: dict[str, Callable[[Data, Path | None], _Source]] = {
    "digits": _digits,
    "cifar10": _torchvision,
    "cifar100": _torchvision,
    "svhn": _torchvision,
    "stl10": _torchvision,
    "folder": _folder,
}
