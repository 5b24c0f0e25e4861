"""Where labelled image files come from: a folder of class folders, or a list; whole, or one side of a cut."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from floats_edge.data.files import Listing
from floats_edge.data.order import TEST_SEED, permutation
from floats_edge.data.walk import entries, images_below, is_text, relative_name, visible, why_passed_over
from floats_edge.errors import DataError
from floats_edge.images import Indices, Labels

LAYOUT = (
    "an image folder holds train/<class>/ and test/<class>/, or <class>/ alone; point --data-dir or data.root at it, "
    "or at a list of files (.csv or .jsonl)"
)
LOOSE = "images in no class folder"
TEST_SHARE = 0.2
"""Of each class, where no images are set apart for testing."""


class Part(Protocol):
    """Labelled images in files."""

    @property
    def title(self) -> str:
        """Where they are, for people."""
        ...

    def names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        ...

    def listing(self) -> Listing:
        """All of the files, class by class."""
        ...


@dataclass(frozen=True)
class ClassFolders:
    """A folder that holds one folder for each class.

    Attributes:
        folder: that folder.
        root: what the names in reports are relative to.
    """

    folder: Path
    root: Path

    @property
    def title(self) -> str:
        return str(self.folder)

    def names(self) -> tuple[str, ...]:
        """Names of the class folders, sorted.

        Raises:
            DataError: there are none.
        """
        if not self.folder.is_dir():
            raise DataError(f"there is no folder {self.folder}.", fix=LAYOUT)
        names = tuple(sorted(path.name for path in visible(self.folder) if path.is_dir()))
        if not names:
            raise DataError(f"{self.folder} holds no class folder.", fix=LAYOUT)
        for name in names:
            if not is_text(name):
                raise DataError(
                    f"the name of the class folder {self.folder / name} is no text.",
                    fix="rename it; convmv mends names in another encoding than UTF-8",
                )
        return names

    def listing(self) -> Listing:
        """The images below each class folder.

        Raises:
            DataError: a folder holds no image or cannot be read.
        """
        names = self.names()
        files: list[Path] = []
        labels: list[int] = []
        passed_over = [*self._beside_classes()]
        for label, name in enumerate(names):
            folder = self.folder / name
            walked = images_below(folder)
            found = [(reason, relative_name(path, self.root)) for reason, path in walked.passed_over]
            if not walked.images:
                why = f"; passed over: {found[0][1]}: {found[0][0]}" if found else ""
                raise DataError(
                    f"the class folder {folder} holds no image{why}.",
                    fix="put images of that class there, or remove the folder",
                )
            files += walked.images
            labels += [label] * len(walked.images)
            passed_over += found
        return Listing(names, files, np.array(labels, dtype=np.int64), tuple(passed_over))

    def _beside_classes(self) -> list[tuple[str, str]]:
        found = ((why_passed_over(path) or LOOSE, path) for path in entries(self.folder))
        return [
            (reason, relative_name(path, self.root)) for reason, path in found if reason != LOOSE or not path.is_dir()
        ]


@dataclass(frozen=True)
class Cut:
    """One side of images among which none are set apart for testing: a fifth of each class is, by a fixed seed.

    Attributes:
        whole: all of the images.
        side: which of them this is.
        listed: lists the whole.
    """

    whole: Part
    side: Literal["train", "test"]
    listed: Callable[[], Listing]

    @property
    def title(self) -> str:
        return self.whole.title

    def names(self) -> tuple[str, ...]:
        return self.whole.names()

    def listing(self) -> Listing:
        """The files of this side.

        Raises:
            DataError: a class has too few.
        """
        whole = self.listed()
        test = _cut(whole.names, whole.labels)
        if self.side == "test":
            return whole.take(test)
        return whole.take(np.setdiff1d(np.arange(len(whole.labels)), test))


def _cut(names: tuple[str, ...], labels: Labels) -> Indices:
    """Which images are set apart for testing: a pure function of the sorted paths."""
    chosen: list[Indices] = []
    for label, name in enumerate(names):
        members = np.flatnonzero(labels == label)
        if len(members) < 3:
            counts = np.bincount(labels, minlength=len(names))
            short = ", ".join(f"{name} ({n})" for name, n in zip(names, counts, strict=True) if n < 3)
            raise DataError(
                f"too few images to split into some to train on, to hold out and to test, in these classes "
                f"(images in brackets): {short}.",
                fix=f"add images of class {name}, or remove it",
            )
        count = max(1, round(TEST_SHARE * len(members)))
        chosen.append(np.sort(members[permutation(len(members), TEST_SEED)[:count]]))
    return np.concatenate(chosen)
