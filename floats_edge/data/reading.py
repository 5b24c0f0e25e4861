"""How a command reads images, and what it gets: a data set whose halves are looked for when they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from floats_edge.data_report import DataReport
from floats_edge.images import MEMORY, Images, Indices, Shape

if TYPE_CHECKING:
    from torch import Tensor

    Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """How images are read that lie in files.

    Attributes:
        skip_damaged: leave out images that cannot be read or are too thin, instead of refusing all; each is decoded to
            find out.
        tell: told what was found.
        memory: bytes that the images of a split may take in memory; more are read anew whenever they are needed.
        loaders: processes that read these for training, 0: the one that trains; None: as many as there are CPUs to
            spare.
    """

    skip_damaged: bool = False
    tell: Callable[[DataReport], None] = lambda _: None
    memory: int = MEMORY
    loaders: int | None = None

    def split(self, images: Images) -> Images:
        """The images of a split, to be kept and read so."""
        return replace(images, memory=self.memory, loaders=self.loaders)


@dataclass(frozen=True, eq=False)
class Half:
    """The images to train on, or those to test on.

    Attributes:
        images: all of them; the order of the splits is drawn over these.
        readable: positions of those that are not left out as damaged, ascending; None: all are read.
        passed_over: pairs of a reason and a file that is not read.
        damaged: what is left out, each with the reason.
    """

    images: Images
    readable: Indices | None = None
    passed_over: tuple[tuple[str, str], ...] = ()
    damaged: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, order: Indices) -> Images:
        """The images at ``order`` but for damaged ones: leaving these out moves no other to another split."""
        return self.images.take(order if self.readable is None else order[np.isin(order, self.readable)])

    def all(self) -> Images:
        """All that can be read, in their own order."""
        return self.images if self.readable is None else self.images.take(self.readable)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set.

    Attributes:
        names: of the classes.
        train: gives the images to train on.
        test: gives the images to test on; told the shape they must have, None for any that all of them have.
        layout: how the images lie in a folder; None: they do not.
        passed_over: pairs of a reason and what is in that folder, but in neither half.
        remarks: what the user should know of it.
        transform: of the user's, which augments a training image, uint8 ``[C, H, W]``.
    """

    names: tuple[str, ...]
    train: Callable[[], Half]
    test: Callable[[Shape | None], Half]
    layout: str | None = None
    passed_over: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    transform: "Transform | None" = None
