"""Files that appear whole or not at all, and their hashes."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from floats_edge.errors import OutputError


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
            fix="choose another output with -o, or make room or grant access there",
        ) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; on any failure, the old file stays and nothing half-written does.

    Raises:
        OutputError: the file system refuses.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def staged_directory(path: Path, marker: str) -> Iterator[Path]:
    """Fill a directory beside ``path`` and put it in place when the block ends well; otherwise remove it.

    Args:
        path: the directory to create or replace.
        marker: a file that a directory to be replaced must hold, so that no foreign directory is ever deleted.

    Raises:
        OutputError: the file system refuses, or ``path`` exists and is something else.
    """
    path = path.absolute()
    if path.exists() and not (path / marker).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(
            f"{path} exists and holds no {marker}, so it will not be replaced.", fix="choose another directory with -o"
        )
    staging = path.with_name(f".{path.name}.partial-{os.getpid()}")
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
