"""Lists of image files: CSV or JSON lines, each with a path, a label and, if wanted, the split it belongs to; and the
annotations of Tiny-ImageNet.

Paths are relative to the list's own folder and stay below it: a list may have come with a stranger's images. Absolute
paths, and ``..``, are taken from a list that the user named itself, not from one that was found in a folder.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from floats_edge.data.files import Listing
from floats_edge.data.walk import is_text
from floats_edge.errors import DataError

SUFFIXES = (".csv", ".jsonl")
MOST_BYTES = 2**28
_PATH = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
_LABEL = ("label", "class", "class_name", "category")
_SPLIT = ("split", "set", "subset")
_MOST_TOLD = 10
_FORM = (
    "a CSV list begins with a line path,label or path,label,split; each line of JSON lines is like "
    '{"path": "ant/1.jpg", "label": "ant"}'
)
_ANNOTATION = "each line holds the name of a file in images, its class and, if wanted, a box, with tabs between them"
TWICE = "files that are listed twice"


@dataclass(frozen=True)
class Row:
    """One line of a list."""

    file: Path
    label: str
    split: str | None
    line: int


@dataclass(frozen=True)
class ListFile:
    """Images that a list names.

    Attributes:
        path: of the list.
        rows: its lines, or those of one split.
    """

    path: Path
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        return str(self.path)

    def names(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({row.label for row in self.rows}))

    def listing(self) -> Listing:
        """The files by label, in each sorted by their paths.

        Raises:
            DataError: a file is listed with two labels.
        """
        labels: dict[Path, str] = {}
        twice: list[tuple[str, str]] = []
        clashes: list[str] = []
        for row in self.rows:
            if row.file in labels:
                twice.append((TWICE, f"{self.path.name}, line {row.line}"))
            if labels.setdefault(row.file, row.label) != row.label:
                clashes.append(f"line {row.line}: {row.file.name} is {row.label}, and {labels[row.file]} elsewhere")
        if clashes:
            raise _wrong(self.path, clashes, "give every file one label")
        names = self.names()
        positions = {name: position for position, name in enumerate(names)}
        pairs = sorted((positions[label], file) for file, label in labels.items())
        return Listing(
            names,
            [file for _, file in pairs],
            np.array([label for label, _ in pairs], dtype=np.int64),
            tuple(twice),
        )

    def first_line(self, label: str) -> int:
        """Where a label first stands."""
        return next(row.line for row in self.rows if row.label == label)

    def of_split(self, split: str) -> "ListFile":
        """The lines of one split."""
        return ListFile(self.path, tuple(row for row in self.rows if row.split == split))


def read_named(path: Path) -> ListFile:
    """Read a list that the user named: its paths may lead anywhere.

    Raises:
        DataError: it cannot be read or is no list.
    """
    return _read(path, path.parent, _anywhere, _FORM)


def read_found(path: Path) -> ListFile:
    """Read a list that was found in a folder: its paths stay below that.

    Raises:
        DataError: it cannot be read, is no list, or a path leaves the folder.
    """
    outside = "paths that lead elsewhere are read if --data-dir names the list itself"
    return _read(path, path.parent, _below, f"{_FORM}; {outside}")


def read_annotations(path: Path) -> ListFile:
    """Read the labels of the images in the folder ``images`` beside, as Tiny-ImageNet has them.

    Raises:
        DataError: they cannot be read, or a line is none of these.
    """
    return _read(path, path.parent / "images", _below, _ANNOTATION)


def _anywhere(text: str) -> PurePosixPath:
    return PurePosixPath(text)


def _below(text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{text} leads out of the folder of the list")
    return path


def _read(path: Path, folder: Path, place: Callable[[str], PurePosixPath], form: str) -> ListFile:
    """The list at ``path``, of files in ``folder``; ``form`` says how it is to look."""
    records = _RECORDS[path.suffix.lower()]
    text = _text(path)
    try:
        found = [_row(folder, values, line, place) for line, values in records(text, path)]
    except (csv.Error, RecursionError) as error:
        raise _wrong(path, [str(error)], form) from None
    wrong = [row for row in found if isinstance(row, str)]
    if wrong:
        raise _wrong(path, wrong, form)
    if not found:
        raise DataError(f"the list {path} names no file.", fix=form)
    return ListFile(path, tuple(row for row in found if isinstance(row, Row)))


def _row(folder: Path, values: dict[str, str], line: int, place: Callable[[str], PurePosixPath]) -> Row | str:
    """One line, or what is wrong with it."""
    text, label, split = (_first(values, names) for names in (_PATH, _LABEL, _SPLIT))
    if not text or not label:
        return f"line {line}: it has no {'label' if text else 'path'}"
    if not (is_text(text) and is_text(label)):
        return f"line {line}: it holds characters that are no text"
    try:
        return Row(folder / place(text.replace("\\", "/")), label, (split or "").casefold() or None, line)
    except ValueError as error:
        return f"line {line}: {error}"


def _first(values: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((values[name] for name in names if name in values), None)


def _csv_records(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [cell.strip().casefold() for cell in next(reader, [])]
    if not (set(header) & set(_PATH) and set(header) & set(_LABEL)):
        raise DataError(f"the first line of {path} does not name a column `path` and a column `label`.", fix=_FORM)
    for cells in reader:
        if any(cells):
            yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=False))


def _json_records(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    del path
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _json_values(line)


def _annotations(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    del path
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, dict(zip((_PATH[0], _LABEL[0]), map(str.strip, line.split("\t")), strict=False))


_RECORDS = {".csv": _csv_records, ".jsonl": _json_records, ".txt": _annotations}


def _json_values(line: str) -> dict[str, str]:
    """Strings by key, numbers among them, as labels may be; nothing if it is no object."""
    try:
        values: Any = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {
        key.casefold(): str(value).strip()
        for key, value in values.items()
        if isinstance(value, str) or type(value) is int
    }


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise DataError(f"the list {path} is not a file.", fix=_FORM)
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"the list {path} is larger than {MOST_BYTES >> 20} MiB.", fix="split it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read: {error}.", fix="save it as UTF-8 text") from None


def _wrong(path: Path, lines: list[str], fix: str) -> DataError:
    more = f"; and {len(lines) - _MOST_TOLD} more" if len(lines) > _MOST_TOLD else ""
    return DataError(f"the list {path} cannot be used: {'; '.join(lines[:_MOST_TOLD])}{more}.", fix=fix)
