"""Images that a user hands over in Python: map-style data sets, as those of torchvision and Hugging Face are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from floats_edge.data.decode import DamagedError, upright_rgb
from floats_edge.data.reading import Half, Source
from floats_edge.errors import DataError
from floats_edge.images import Images, Indices, Labels
from floats_edge.preprocessing import Pixels, Preprocessing, Shape, picture, preprocessed

if TYPE_CHECKING:
    from torch import Tensor

    from floats_edge.images import Change

_PLAIN = (
    'let the data set give (image, label) or {"image": image, "label": label}: images of Pillow or arrays of uint8 '
    "[height, width, 3], as torchvision's do without ToTensor or another transform; scaling is data.preprocessing's, "
    "and augmentation the recipe's or Datasets(transform=...)"
)


class Dataset(Protocol):
    """Labelled images by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> tuple[Any, Any] | Mapping[str, Any]:
        """An image, of Pillow or uint8 ``[H, W, 3]`` or ``[H, W]``, and the number of its class.

        They are a pair or, as Hugging Face's ``datasets`` give them, under the keys ``image`` and ``label``.
        """
        ...


@dataclass(frozen=True, eq=False)
class Datasets:
    """Images to train and to test on, in place of a folder.

    Attributes:
        train: part of which is held out for choices, as the recipe says.
        test: to test on.
        labels: names of the classes, by their numbers.
        transform: augments a training image, uint8 ``[C, H, W]`` to the same; its random choices are to come from
            torch, NumPy or ``random``, which are seeded for each image.
    """

    train: Dataset
    test: Dataset
    labels: Sequence[str]
    transform: "Callable[[Tensor], Tensor] | None" = None

    def source(self, preprocessing: Preprocessing) -> Source:
        """The data set as a recipe's is."""
        names = tuple(self.labels)
        return Source(
            names=names,
            train=lambda: Half(_images(self.train, names, preprocessing, None)),
            test=lambda shape: Half(_images(self.test, names, preprocessing, shape)),
            transform=self.transform,
        )


def _images(dataset: Dataset, names: tuple[str, ...], preprocessing: Preprocessing, shape: Shape | None) -> Images:
    """Read one after the other: who knows whether a data set of a user's bears threads."""
    from PIL.Image import Image

    def stored(position: int) -> Image:
        image = _item(dataset, position)[0]
        if not isinstance(image, np.ndarray | Image):
            raise DataError(
                f"image {position} of the data set is a {type(image).__name__}, and neither an image of Pillow nor an "
                "array of NumPy.",
                fix=_PLAIN,
            )
        try:
            if isinstance(image, np.ndarray) or image.mode == "L":
                return picture(image)
            return picture(upright_rgb(image))
        except (DamagedError, DataError) as error:
            raise DataError(
                f"image {position} of the data set is a {type(image).__name__} that cannot be used: {error}", fix=_PLAIN
            ) from None

    labels = _labels(dataset, len(names))
    wanted = shape or preprocessed(stored(0), preprocessing).shape

    def draw(position: int) -> Pixels:
        pixels = preprocessed(stored(position), preprocessing)
        if pixels.shape != wanted:
            raise DataError(
                f"image {position} of the data set is {pixels.shape[2]}x{pixels.shape[1]} pixels, others are "
                f"{wanted[2]}x{wanted[1]}.",
                fix="scale all of them while reading: options=('data.preprocessing.size=PIXELS',)",
            )
        return pixels

    def read(indices: Indices) -> Pixels:
        return np.stack([draw(int(position)) for position in indices])

    def changed(position: int, change: "Change") -> Pixels:
        return preprocessed(change(stored(position)), preprocessing)

    return Images(labels, read, changed)


def _labels(dataset: Dataset, classes: int) -> Labels:
    """Of all images: those that the data set knows, or else each image is asked for once."""
    if not hasattr(dataset, "__len__"):
        raise DataError(
            f"the {type(dataset).__name__} does not know how many images it has.",
            fix="hand over a map-style data set; with Hugging Face's datasets, load it without streaming=True",
        )
    names = ("targets", "labels")
    known: Any = next((values for name in names if (values := getattr(dataset, name, None)) is not None), ())
    if "label" in getattr(dataset, "column_names", ()):  # of Hugging Face: no image is decoded for its label
        columns: Any = dataset
        known = columns["label"][:]
    if len(known) != len(dataset):
        known = [_item(dataset, position)[1] for position in range(len(dataset))]
    labels = np.asarray(known)
    if not len(labels) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"the {len(labels)} labels of the data set are not the numbers of {classes} classes.",
            fix="let each be a whole number from 0 on, a position in the names: Datasets(labels=[...])",
        )
    return labels.astype(np.int64)


def _item(dataset: Dataset, position: int) -> tuple[Any, Any]:
    try:
        item = dataset[position]
        if isinstance(item, Mapping):
            _check_columns(item, position)
            item = item["image"], item["label"]
        image, label = item
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"image {position} of the data set cannot be had: {type(error).__name__}: {error}", fix=_PLAIN
        ) from error
    return image, label


def _check_columns(row: Mapping[str, Any], position: int) -> None:
    for wanted in ("image", "label"):
        if wanted not in row:
            raise DataError(
                f"image {position} of the data set has no column {wanted!r}, but {', '.join(map(repr, row))}.",
                fix=f"rename the one that is meant; of Hugging Face's: dataset.rename_column(NAME, {wanted!r})",
            )
