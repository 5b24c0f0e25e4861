"""An image folder as it comes: which images are to train on, and which to test on.

| in the folder                                     | read as                                                          |
| ------------------------------------------------- | ---------------------------------------------------------------- |
| ``train/<class>/…`` and ``test/<class>/…``        | these; ``testing``, ``val``, ``valid`` or ``validation`` stand   |
|                                                   | in for ``test`` in this order, ``training`` for ``train``, in    |
|                                                   | lower or upper case                                              |
| ``val/images/…`` and ``val/val_annotations.txt``  | Tiny-ImageNet's labels, in place of class folders                |
| ``train.csv`` and ``test.csv``, or ``.jsonl``     | lists of files, where no such folders hold classes               |
| ``<class>/…``                                     | all images; a fifth of each class is set apart for testing       |
| ``labels.csv`` or ``labels.jsonl``                | the same, of a list; its column ``split``, if there is one, says |
|                                                   | what is set apart                                                |

In place of a folder the user may name a list.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from floats_edge.data import lists
from floats_edge.data.files import Listing, file_half, sound_half
from floats_edge.data.lists import ListFile
from floats_edge.data.parts import LAYOUT, LOOSE, TEST_SHARE, ClassFolders, Cut, Part
from floats_edge.data.reading import Half, Reading, Source
from floats_edge.data.walk import SUFFIXES, entries, images_below, relative_name, visible, why_passed_over
from floats_edge.errors import DataError
from floats_edge.preprocessing import Preprocessing, Shape

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
LIST = "labels"
BESIDE = "folders beside those that are read"
UNLISTED = "images that no list names"
IMAGES = "images"
"""A folder that is called so and stands alone is no class: it holds images of all classes."""


@dataclass(frozen=True)
class Layout:
    """How the images lie.

    Attributes:
        title: the same, for people.
        train: images to train on; None: there are none.
        test: images to test on; None: there are none.
        passed_over: pairs of a reason and what is not read.
        remarks: what the user should know.
    """

    title: str
    train: Part | None
    test: Part | None
    passed_over: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()


def folder_source(root: Path, preprocessing: Preprocessing, reading: Reading) -> Source:
    """The images in a folder or list, whose halves are looked for when they are asked for.

    Either half may be missing as long as nobody asks for it; the classes are those to train on, if these are there.

    Args:
        root: the folder or list.
        preprocessing: what is done with each image; without a size, all have one.
        reading: what is done about damaged images.

    Raises:
        DataError: there is no such folder, or nothing in it that is read.
    """
    layout = find_layout(root)
    base = root.parent if root.is_file() else root
    known = layout.train or layout.test
    assert known is not None
    names = known.names()

    def half(listing: Listing, shape: Shape | None) -> Half:
        if reading.skip_damaged:
            return sound_half(listing, preprocessing, shape, base)
        return file_half(listing, preprocessing, shape)

    return Source(
        names=names,
        train=lambda: half(_to_train_on(_train(layout, root)), None),
        test=lambda shape: half(_to_test_on(_test(layout, root), names, layout), shape),
        layout=layout.title,
        passed_over=layout.passed_over,
        remarks=layout.remarks,
    )


def _train(layout: Layout, root: Path) -> Part:
    if layout.train is None:
        raise DataError(f"there is no folder {root / TRAIN[0]}.", fix=LAYOUT)
    return layout.train


def _test(layout: Layout, root: Path) -> Part:
    if layout.test is None:
        apart = f"; or name {root / TRAIN[0]} with --data-dir, and a fifth of each class is set apart"
        raise DataError(f"there is no folder {root / TEST[0]}.", fix=LAYOUT + apart)
    return layout.test


def _to_train_on(part: Part) -> Listing:
    names = part.names()
    if len(names) < 2:
        raise DataError(
            f"{part.title} holds one class only: {', '.join(names)}.",
            fix=f"{LAYOUT}; if that is no class but a folder of classes, point at it",
        )
    return part.listing()


def _to_test_on(part: Part, names: tuple[str, ...], layout: Layout) -> Listing:
    """The images of those classes among ``names`` that are there."""
    found = part.names()
    unknown = sorted(set(found) - set(names))
    if unknown and layout.train is not None:
        if isinstance(part, ListFile):
            unknown = [f"{name} (line {part.first_line(name)})" for name in unknown]
        raise DataError(
            f"{part.title} holds a class that {layout.train.title} does not: {', '.join(unknown)}.",
            fix="give every class images to train on, or remove it from the test images",
        )
    listing = part.listing()
    positions = np.array([names.index(name) for name in found])
    return Listing(names, listing.files, positions[listing.labels], listing.passed_over)


def find_layout(root: Path) -> Layout:
    """How the images in a folder, or in a list, lie.

    Raises:
        DataError: there is no such folder or list.
    """
    if root.is_file():
        if root.suffix.lower() not in lists.SUFFIXES:
            raise DataError(f"{root} is neither a folder nor a list of files.", fix=LAYOUT)
        return _list_layout(lists.read_named(root))
    if not root.is_dir():
        raise DataError(f"there is no folder {root}.", fix=LAYOUT)
    train, test = _parts(root, TRAIN), sorted(_parts(root, TEST), key=_unlabelled)
    if train or test:
        return _split_layout(root, train, test)
    found = _lists(entries(root), LIST)
    if not found:
        return _whole(ClassFolders(root, root), "class folders")
    named = lists.read_found(found[0])
    layout = _list_layout(named)
    return replace(layout, passed_over=(*layout.passed_over, *_unlisted(root, [named], root)))


def looks_like_images(root: Path) -> bool:
    """Whether ``root`` is an image folder at first sight, rather than a place where a data set is stored."""
    if not root.is_dir():
        return False
    if any(_parts(root, names) for names in (TRAIN, TEST, (LIST,))):
        return True
    folders = [path for path in visible(root) if path.is_dir()]
    holding = {path.parent for path in root.glob("*/*") if path.suffix.lower() in SUFFIXES}
    return bool(folders) and holding.issuperset(folders)


def _split_layout(root: Path, train: list[Path], test: list[Path]) -> Layout:
    parts = {path: _part(path, root) for path in (*train[:1], *test[:1])}
    titles = {path: path.name + ("/" if path.is_dir() else "") for path in parts}
    found = [part for part in parts.values() if isinstance(part, ListFile)]
    if len(found) == len(parts):
        passed_over = _unlisted(root, found, root)
    else:
        passed_over = [*_beside(root, [*parts, *test[1:]]), *_second_test(root, test, titles)]
        annotated = [(path, part) for path, part in parts.items() if path.is_dir() and isinstance(part, ListFile)]
        passed_over += [pair for path, part in annotated for pair in _unlisted(path, [part], root)]
    return Layout(
        title=" and ".join(titles.values()),
        train=parts[train[0]] if train else None,
        test=parts[test[0]] if test else None,
        passed_over=tuple(passed_over),
    )


def _beside(root: Path, known: list[Path]) -> list[tuple[str, str]]:
    """What lies in a folder beside what is ``known``."""
    others = [path for path in entries(root) if path not in known]
    return [(why_passed_over(path) or (BESIDE if path.is_dir() else LOOSE), path.name) for path in others]


def _second_test(root: Path, test: list[Path], titles: dict[Path, str]) -> list[tuple[str, str]]:
    """Images that could be tested on, had another folder not come first or had they labels."""
    reasons = {
        path: "which have no labels" if _unlabelled(path) else f"as {titles[test[0]]} is tested on" for path in test[1:]
    }
    return [
        (f"images of {path.name}, {reason}", relative_name(file, root))
        for path, reason in reasons.items()
        for file in (images_below(path).images if path.is_dir() else (path,))
    ]


def _unlisted(folder: Path, found: list[ListFile], root: Path) -> list[tuple[str, str]]:
    """Images in a folder that no list names which was found there."""
    listed = {row.file for part in found for row in part.rows}
    return [(UNLISTED, relative_name(file, root)) for file in images_below(folder).images if file not in listed]


def _part(path: Path, root: Path) -> Part:
    if not path.is_dir():
        return lists.read_found(path)
    annotations = _annotations(path)
    return ClassFolders(path, root) if annotations is None else lists.read_annotations(annotations)


def _annotations(folder: Path) -> Path | None:
    """The file that has the labels of a folder without class folders; None: there is none."""
    if _has_classes(folder):
        return None
    name = f"{folder.name}_annotations.txt".casefold()
    return next((path for path in visible(folder) if path.name.casefold() == name and path.is_file()), None)


def _has_classes(folder: Path) -> bool:
    return [path.name for path in visible(folder) if path.is_dir()] not in ([], [IMAGES])


def _unlabelled(path: Path) -> bool:
    """Whether ``path`` is a folder of images that nothing says the classes of, as ImageNet's test images are."""
    return path.is_dir() and not _has_classes(path) and _annotations(path) is None


def _parts(root: Path, names: tuple[str, ...]) -> list[Path]:
    """Folders and lists called by one of ``names``, in that order; a list comes before a folder without folders."""
    inside = entries(root)
    found: list[Path] = []
    for name in names:
        called = [path for path in inside if path.name.casefold() == name and path.is_dir()]
        folders = sorted(called, key=lambda path: path.name != name)
        found += [path for path in folders if any(p.is_dir() for p in visible(path))] or _lists(inside, name) or folders
    return found


def _lists(inside: list[Path], name: str) -> list[Path]:
    return [
        path
        for path in inside
        if path.stem.casefold() == name and path.suffix.lower() in lists.SUFFIXES and path.is_file()
    ]


def _list_layout(found: ListFile) -> Layout:
    """A list whose lines say which split they belong to, or one that is to be cut."""
    splits = {row.split for row in found.rows}
    if splits == {None}:
        return _whole(found, f"the list {found.path.name}")
    train = next((split for split in TRAIN if split in splits), None)
    test = next((split for split in TEST if split in splits), None)
    if train is None and test is None:
        raise DataError(
            f"the splits in the list {found.path} are neither of {', '.join(TRAIN)} nor of {', '.join(TEST)}.",
            fix="correct the column split, or remove it",
        )
    others = [
        (f"lines of split {row.split}", f"line {row.line}") for row in found.rows if row.split not in (train, test)
    ]
    return Layout(
        title=f"the list {found.path.name}",
        train=found.of_split(train) if train else None,
        test=found.of_split(test) if test else None,
        passed_over=tuple(others),
    )


def _whole(part: Part, title: str) -> Layout:
    listing = cache(part.listing)
    return Layout(
        title=title,
        train=Cut(part, "train", listing),
        test=Cut(part, "test", listing),
        remarks=(f"no images are set apart for testing: {TEST_SHARE:.0%} of each class are, the same ones each time",),
    )
