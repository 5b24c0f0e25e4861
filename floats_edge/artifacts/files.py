"""Files that appear whole or not at all, and are read as if a stranger had made them."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from safetensors import SafetensorError

from floats_edge import __version__
from floats_edge.artifacts.json_text import MOST_COMMAS, checked_json
from floats_edge.artifacts.memory import check_bytes
from floats_edge.errors import ArtifactError, OutputError
from floats_edge.recipe import Section

Tensors = dict[str, NDArray[Any]]
Schema = TypeVar("Schema", bound=BaseModel)

LARGEST_JSON = 16 * 2**20
"""Of a file, in bytes, unless less is said."""
LARGEST_HEADER = 10**6
"""Of a safetensors file, in bytes."""
_PART = r"[A-Za-z0-9][A-Za-z0-9._+=-]*"
_FILE_NAME = re.compile(rf"{_PART}(/{_PART})*")


def _stays_inside(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} does not name a file inside the folder")
    return name


FileName = Annotated[str, Field(max_length=255), AfterValidator(_stays_inside)]
"""Path of a file relative to its artifact's folder, the same on every system: parts of ASCII letters, digits and
``._+=-``, each from a letter or digit on, with forward slashes between them."""


class FileEntry(Section):
    """Identity of one file of an artifact."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=2**50)


@dataclass(frozen=True)
class FileSet:
    """The files an artifact lists, below its folder; ``remedy`` ends every error about them.

    Attributes:
        remedies: of the files that something else mends.
    """

    root: Path
    entries: Mapping[str, FileEntry]
    remedy: str
    remedies: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check that every file is there, inside the folder and of its stated size.

        Raises:
            ArtifactError: naming the first file that is not.
        """
        for name in self.entries:
            self._check(name)

    def _check(self, name: str) -> None:
        file, remedy = self.root / name, self._remedy(name)
        try:
            size = file.stat().st_size
        except OSError as error:
            raise ArtifactError(f"{file} is missing: {error.strerror}.", fix=remedy) from None
        if not file.resolve().is_relative_to(self.root.resolve()):
            raise ArtifactError(f"{file} leads out of its folder.", fix=remedy)
        if not file.is_file() or size != self.entries[name].bytes:
            raise ArtifactError(f"{file} is truncated or altered: its size differs.", fix=remedy)

    def verify(self) -> None:
        """Check the hash of every file.

        Raises:
            ArtifactError: naming the first file that differs.
        """
        for name in self.entries:
            self.read(name)

    def problem(self, name: str) -> str | None:
        """What is wrong with one file, its hash included; None if nothing."""
        try:
            self._check(name)
            self.read(name)
        except ArtifactError as error:
            return error.what
        return None

    def read(self, name: str) -> bytes:
        """The bytes of one file, of the stated hash: call before anything deserialises them.

        Raises:
            ArtifactError: it cannot be read, is larger than allowed, or its bytes are not those that were written.
        """
        entry, remedy = self.entries[name], self._remedy(name)
        check_bytes(entry.bytes, self.root / name)
        try:
            with (self.root / name).open("rb") as file:
                data = file.read(entry.bytes + 1)  # it may have grown since it was checked
        except OSError as error:
            raise ArtifactError(f"{self.root / name} cannot be read: {error.strerror}.", fix=remedy) from None
        if sha256(data) != entry.sha256:
            raise ArtifactError(f"{self.root / name} was altered: its sha256 differs.", fix=remedy)
        return data

    def tensors(self, name: str) -> Tensors:
        """One safetensors file as NumPy arrays.

        Raises:
            ArtifactError: the bytes are not those that were written, or not safetensors that NumPy can hold.
        """
        data = self.read(name)
        try:
            _check_header(data)
            return safetensors.numpy.load(data)
        except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that NumPy lacks
            raise ArtifactError(
                f"{self.root / name} is not valid safetensors: {error}.", fix=self._remedy(name)
            ) from None

    def _remedy(self, name: str) -> str:
        return self.remedies.get(name, self.remedy)


def file_entry(data: bytes) -> FileEntry:
    """Identity of a file of these bytes."""
    return FileEntry(sha256=sha256(data), bytes=len(data))


def foreign_file(folder: Path, listed: Set[str]) -> str | None:
    """The first file below ``folder`` that is not ``listed``; None if there is none."""
    found = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())
    return min(set(found) - listed, default=None)


def pack_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """NumPy arrays as the bytes of a safetensors file."""
    return safetensors.numpy.save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()})


def _check_header(data: bytes) -> None:
    """Find what the safetensors library lets pass and the C++ kit does not.

    Raises:
        ValueError: of a header that is too long, or not JSON that every reader takes for the same.
    """
    length = int.from_bytes(data[:8], "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header is longer than {LARGEST_HEADER} bytes")
    if data[8:9] != b"{":
        raise ValueError("its header is no JSON object")
    checked_json(data[8 : 8 + length])


def read_json(
    path: Path, schema: type[Schema], remedy: str, largest: int = LARGEST_JSON, most_commas: int = MOST_COMMAS
) -> Schema:
    """A JSON file of at most ``largest`` bytes as a value of ``schema``, whose types are taken at their word.

    Raises:
        ArtifactError: no such file, or not valid: "1" is no number, for one.
    """
    data = _read_small(path, remedy, largest)
    document: Any = None
    try:
        document = checked_json(data, most_commas)
        return schema.model_validate_json(data, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden" or where.endswith("schema_version") or _is_newer(document):
            remedy = f"use a newer floats-edge, or {remedy}"
        raise ArtifactError(f"{path} is not valid: {where or 'file'}: {problem['msg']}.", fix=remedy) from None
    except ValueError as error:  # not JSON
        raise ArtifactError(f"{path} is not valid: file: Invalid JSON: {error}.", fix=remedy) from None


def _read_small(path: Path, remedy: str, largest: int) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a device or a pipe may have no end
            raise ArtifactError(f"{path} cannot be read: it is no regular file.", fix=remedy)
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.", fix=remedy) from None
    if len(data) > largest:
        raise ArtifactError(f"{path} is larger than any that floats-edge writes.", fix=remedy)
    return data


def _is_newer(document: Any) -> bool:
    """Whether a newer floats-edge says that it wrote a document."""
    stated = document.get("floats_edge_version") if isinstance(document, dict) else None
    try:
        return isinstance(stated, str) and len(stated) < 64 and Version(stated) > Version(__version__)
    except InvalidVersion:
        return False


def sha256(data: bytes) -> str:
    """Hex digest of ``data``."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failing file system into an :class:`OutputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}; what stood there is untouched.",
            fix="choose another output with --out, or make room or grant access there",
        ) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, or to where a link there points; on any failure, what stood there stays whole.

    Raises:
        OutputError: the file system refuses, or something that is no regular file is there.
    """
    with writing(path):
        file = _regular(path)
        partial = _partial(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out, before work whose result goes to ``path``, whether it can be written there.

    Raises:
        OutputError: the file system refuses, or something that is no regular file is there.
    """
    with writing(path):
        file = _regular(path)
        trial = _partial(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            trial.touch()
        finally:
            trial.unlink(missing_ok=True)


def _regular(path: Path) -> Path:
    """The file that ``path`` leads to, which may not be there yet.

    Raises:
        OSError: a folder, a device, a pipe or a link without an end is there: a file put in its place would destroy it.
    """
    file = Path(os.path.realpath(path))
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if os.path.lexists(file) and not (file.is_file() and not file.is_symlink()):
        raise FileExistsError(errno.EEXIST, "what is there is no regular file")
    return file


def _partial(path: Path) -> Path:
    """Where what is to become ``path`` is written first: beside it, so that a rename is all that remains."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


@contextmanager
def staged_directory(path: Path, marker: str) -> Iterator[Path]:
    """Fill a directory beside ``path`` and put it in place when the block ends well; otherwise remove it.

    Args:
        path: the directory to create or replace.
        marker: a file that a directory to be replaced must hold, so that no foreign directory is ever deleted.

    Raises:
        OutputError: the file system refuses, or ``path`` exists and is something else.
    """
    with writing(path):
        path = Path(os.path.realpath(path))
        if os.path.lexists(path) and not (path / marker).is_file() and not (path.is_dir() and not any(path.iterdir())):
            raise OutputError(
                f"{path} exists and holds no {marker}, so it will not be replaced.",
                fix="choose another directory with --out",
            )
    staging = _partial(path)
    replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")
    with writing(path):
        try:
            staging.mkdir(parents=True)
            yield staging
            if path.exists():
                path.rename(replaced)
            staging.rename(path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if replaced.exists() and not path.exists():
                replaced.rename(path)
            shutil.rmtree(replaced, ignore_errors=True)
