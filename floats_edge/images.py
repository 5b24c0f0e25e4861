"""Labelled images, which may be read late, and what a trained network demands of those that it is given."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from floats_edge.errors import DataError
from floats_edge.preprocessing import (
    Pixels,
    Preprocessing,
    ResolvedPreprocessing,
    Shape,
    leaves_alone,
    picture,
    preprocessed,
)

Labels = NDArray[np.int64]
Indices = NDArray[np.intp]

if TYPE_CHECKING:
    from PIL.Image import Image

    Change = Callable[[Image], Image]

MEMORY = 2**30
"""Bytes that images may take in memory, unless told otherwise."""
CHUNK = 32
"""Images that a thread reads one after the other."""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images. They are read when their pixels are first asked for; those that fit stay in memory then.

    Attributes:
        labels: int64 ``[N]``.
        read: gives uint8 ``[n, C, H, W]`` of the images at n positions.
        changed: gives uint8 ``[C, H, W]`` of the image at a position, which a function changes before it is scaled;
            None: the images are not stored in another size.
        memory: bytes that they may take in memory; images that take more are read anew whenever they are needed.
        loaders: processes that read them for training, where they do not fit; None: as many as there are CPUs to spare.
        files: that each of them is read from; None: they lie in no files of their own.
    """

    labels: Labels
    read: Callable[[Indices], Pixels]
    changed: "Callable[[int, Change], Pixels] | None" = None
    memory: int = MEMORY
    loaders: int | None = None
    files: Sequence[Path] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fit(self) -> bool:
        """Whether all of them may stay in memory."""
        return len(self) * math.prod(self.shape) <= self.memory

    @cached_property
    def pixels(self) -> Pixels:
        """All of them in memory, uint8 ``[N, C, H, W]``.

        Raises:
            DataError: an image is damaged or of another size than the others, or they are too many for the memory.
        """
        return self.read(np.arange(len(self)))

    def at(self, indices: slice | Indices) -> Pixels:
        """The images at ``indices``: uint8 ``[n, C, H, W]``; if all fit in memory, all are read at the first call.

        Raises:
            DataError: as for :attr:`pixels`.
        """
        if self.fit:
            return self.pixels[indices]
        return self.read(np.arange(len(self))[indices])

    @cached_property
    def shape(self) -> Shape:
        """``(C, H, W)`` of the first of them, which all others must have.

        Raises:
            DataError: it is damaged.
        """
        _, channels, height, width = self.read(np.arange(1)).shape
        return channels, height, width

    def as_float(self, indices: slice | Indices = slice(None)) -> NDArray[np.float32]:
        """The images at ``indices`` as a network takes them: float32 ``[n, C, H, W]`` in [0, 1]."""
        return np.divide(self.at(indices), 255, dtype=np.float32)

    def batches(self, size: int) -> "Iterator[tuple[NDArray[np.float32], Labels]]":
        """All images as a network takes them, and their labels, ``size`` at a time."""
        for start in range(0, len(self), size):
            batch = slice(start, start + size)
            yield self.as_float(batch), self.labels[batch]

    def take(self, indices: Indices) -> "Images":
        """The images at ``indices``, to be read apart from the others."""
        changed = self.changed
        return replace(
            self,
            labels=self.labels[indices],
            read=lambda chosen: self.read(indices[chosen]),
            changed=changed and (lambda position, change: changed(int(indices[position]), change)),
            files=self.files and [self.files[i] for i in indices],
        )

    def first(self, count: int | None) -> "Images":
        """The first ``count`` images, to be read apart from the others; None: all."""
        return self if count is None else self.take(np.arange(len(self))[:count])


@dataclass(frozen=True)
class ImageKind:
    """Which images a trained network takes: anything else would give figures that mean nothing.

    Attributes:
        labels: names of its classes, in the order of its logits.
        preprocessing: how an image becomes what the network takes.
    """

    labels: tuple[str, ...]
    preprocessing: ResolvedPreprocessing

    @property
    def shape(self) -> Shape:
        """``(C, H, W)`` of what the network takes."""
        return self.preprocessing.shape

    def check(self, labels: tuple[str, ...], images: Images) -> None:
        """Let ``images`` of the classes ``labels`` pass if they are of this kind.

        Raises:
            DataError: classes, channels, height or width differ.
        """
        if labels != self.labels:
            unknown = [name for name in labels if name not in self.labels]
            missing = [name for name in self.labels if name not in labels]
            found = [f"it does not know {', '.join(unknown)}"] if unknown else []
            found += [f"the images lack {', '.join(missing)}"] if missing else []
            raise DataError(
                f"the images are not of the network's classes: {' and '.join(found) or 'the order differs'}.",
                fix="name images of the classes that it was trained on with --data-dir, or train a network on these",
            )
        if images.shape != self.shape:
            wanted, got = (_title(shape) for shape in (self.shape, images.shape))
            raise DataError(
                f"the images are not what the network takes: {wanted} wanted, {got} found.",
                fix="set data.preprocessing as it was when the network was trained, or name images like those that it "
                "was trained on with --data-dir",
            )


def _title(shape: Shape) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels of {channels} channel{'s' if channels > 1 else ''}"


def array_images(pixels: Pixels, labels: Labels, preprocessing: Preprocessing) -> Images:
    """Images ``[N, C, H, W]`` in memory, grey or red first, as a network takes them."""

    def draw(position: int) -> Pixels:
        return preprocessed(pixels[position].transpose(1, 2, 0), preprocessing)

    def changed(position: int, change: "Change") -> Pixels:
        return preprocessed(change(picture(pixels[position].transpose(1, 2, 0))), preprocessing)

    shape = draw(0).shape
    alike = leaves_alone((pixels.shape[1], pixels.shape[2], pixels.shape[3]), preprocessing)

    def read(indices: Indices) -> Pixels:
        if alike:
            return np.ascontiguousarray(pixels[indices])
        return drawn(len(indices), shape, lambda i: draw(indices[i]))

    return Images(labels, read, changed)


def drawn(count: int, shape: tuple[int, ...], draw: Callable[[int], Pixels]) -> Pixels:
    """``[count, *shape]`` whose i-th image is ``draw(i)``; PIL releases the interpreter lock, so threads help.

    Raises:
        DataError: they are too many for the memory.
    """
    import psutil

    wanted = count * math.prod(shape)
    available = psutil.virtual_memory().available
    if wanted > available:
        raise DataError(
            f"{count} images of {shape[2]}x{shape[1]} pixels take {wanted / 2**20:.0f} MiB, "
            f"but {available / 2**20:.0f} MiB of memory are available.",
            fix="make them smaller or fewer: train with -o data.preprocessing.size=PIXELS -o data.train_images=NUMBER, "
            "evaluate with --images NUMBER",
        )
    images = np.empty((count, *shape), dtype=np.uint8)

    def fill(start: int) -> None:
        for i in range(start, min(start + CHUNK, count)):
            images[i] = draw(i)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, count, CHUNK)):
            pass  # collecting the results raises what a thread raised, the earliest image first
    return images
