"""Images that lie in files: decoded when they are asked for, and those that are damaged named all at once."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from floats_edge.data.decode import DamagedError, decode, pillow_heeded
from floats_edge.data.reading import Half
from floats_edge.errors import DataError, printable
from floats_edge.images import Images, Indices, Labels, drawn
from floats_edge.preprocessing import Pixels, Preprocessing, Shape, preprocessed, too_thin

if TYPE_CHECKING:
    from PIL.Image import Image

    from floats_edge.images import Change

_MOST_TOLD = 10
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Listing:
    """Image files by class.

    Attributes:
        names: of the classes, sorted.
        files: class by class, in each sorted by their paths.
        labels: int64 ``[N]``, positions in ``names``.
        passed_over: pairs of a reason and a file that is not read.
    """

    names: tuple[str, ...]
    files: Sequence[Path]
    labels: Labels
    passed_over: tuple[tuple[str, str], ...] = ()

    def take(self, indices: Indices) -> "Listing":
        """The files at ``indices``."""
        return Listing(self.names, [self.files[i] for i in indices], self.labels[indices], self.passed_over)


def file_half(listing: Listing, preprocessing: Preprocessing, shape: Shape | None) -> Half:
    """The images of a listing, each of which becomes one of ``shape``, ``(C, H, W)``; None: that of the first of them.

    Raises:
        DataError: that one is damaged; so are these, then.
    """
    return Half(file_images(listing, preprocessing, shape), None, listing.passed_over)


def sound_half(listing: Listing, preprocessing: Preprocessing, shape: Shape | None, root: Path) -> Half:
    """As :func:`file_half`, without the images that cannot be used; each is decoded to find out.

    Raises:
        DataError: none of them can be used.
    """
    damaged = find_damaged(listing.files, preprocessing)
    if len(damaged) == len(listing.files):
        raise damage(listing.files, damaged)
    readable = np.array([i for i in range(len(listing.files)) if i not in damaged], dtype=np.intp)
    images = file_images(listing, preprocessing, shape or _shape(listing.take(readable).files, preprocessing))
    reasons = tuple(printable(f"{_below(listing.files[i], root)}: {reason}") for i, reason in damaged.items())
    return Half(images, readable, listing.passed_over, reasons)


def _below(file: Path, root: Path) -> Path:
    return file.relative_to(root) if file.is_relative_to(root) else file


def file_images(listing: Listing, preprocessing: Preprocessing, shape: Shape | None) -> Images:
    """The images of a listing, read late; ``shape`` as for :func:`file_half`."""
    files = listing.files
    wanted = shape or _shape(files, preprocessing)

    def draw(file: Path) -> Pixels:
        image = file_pixels(file, preprocessing)
        if image.shape != wanted:
            raise DataError(
                f"{file} is {image.shape[2]}x{image.shape[1]} pixels, other images are {wanted[2]}x{wanted[1]}.",
                fix="resize all of them while reading: -o data.preprocessing.size=PIXELS",
            )
        return image

    def read(indices: Indices) -> Pixels:
        try:
            with pillow_heeded():
                return drawn(len(indices), wanted, lambda i: draw(files[indices[i]]))
        except DamagedError:
            raise damage(files, find_damaged(files, preprocessing)) from None

    def changed(position: int, change: "Change") -> Pixels:
        try:
            with pillow_heeded():
                return preprocessed(change(decode(files[position])), preprocessing)
        except DamagedError:
            raise damage(files, find_damaged(files, preprocessing)) from None

    return Images(listing.labels, read, changed, files=files)


def file_pixels(file: Path, preprocessing: Preprocessing) -> Pixels:
    """One image file as a network takes it, uint8 ``[C, H, W]``.

    Raises:
        DamagedError: it cannot be read, or is too thin.
        DataError: it is too large.
    """
    image = _decoded(file, preprocessing)
    try:
        return preprocessed(image, preprocessing)
    except DataError as error:
        raise DataError(f"{file}: {error.what}", fix=error.fix) from None


def _decoded(file: Path, preprocessing: Preprocessing) -> "Image":
    image = decode(file)
    if (reason := too_thin((image.height, image.width), preprocessing)) is not None:
        raise DamagedError(f"{reason}; data.preprocessing.resize=pad takes it")
    return image


def _shape(files: Sequence[Path], preprocessing: Preprocessing) -> Shape:
    try:
        with pillow_heeded():
            channels, height, width = file_pixels(files[0], preprocessing).shape
    except DamagedError:
        raise damage(files, find_damaged(files, preprocessing)) from None
    return channels, height, width


def find_damaged(files: Sequence[Path], preprocessing: Preprocessing) -> dict[int, str]:
    """Which files cannot be used, by their positions, and why; every one is decoded, few at a time."""

    def why_damaged(file: Path) -> str | None:
        try:
            _decoded(file, preprocessing)
        except DamagedError as error:
            return str(error)
        return None

    with pillow_heeded(), ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = {
            start + i: reason
            for start in range(0, len(files), _CHUNK)
            for i, reason in enumerate(pool.map(why_damaged, files[start : start + _CHUNK]))
        }
    return {position: reason for position, reason in reasons.items() if reason is not None}


def damage(files: Sequence[Path], damaged: dict[int, str]) -> DataError:
    """The error that names damaged files: all of them, or the first few and how many there are."""
    told = [f"{files[position]} cannot be read: {reason}" for position, reason in list(damaged.items())[:_MOST_TOLD]]
    more = len(damaged) - len(told)
    counted = "" if len(damaged) == 1 else f"{len(damaged)} of {len(files)} images are damaged. "
    return DataError(
        f"{counted}{'; '.join(told)}{f'; and {more} more' if more else ''}.",
        fix="replace or remove what cannot be read, or leave it out with --skip-damaged",
    )
