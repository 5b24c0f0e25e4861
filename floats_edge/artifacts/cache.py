"""What may be kept between runs to make the next one faster, and may be deleted at any time."""

import logging
import re
from pathlib import Path

from floats_edge.artifacts.files import sha256, write_atomic
from floats_edge.errors import OutputError
from floats_edge.folders import cache_folder

log = logging.getLogger("floats_edge.cache")


def cache_file(*words: str) -> Path | None:
    """The file for what ``words`` identify, in :func:`floats_edge.folders.cache_folder`.

    None, with a remark, for a user without a home: a folder that others can write to is no place for what is trusted.
    """
    folder = cache_folder()
    if folder is None:
        log.warning("nothing is cached: this user has no home directory, and XDG_CACHE_HOME is not set")
        return None
    return folder / (re.sub(r"[^\w.+-]", "_", "-".join(words)) + ".cache")


def read_cache(file: Path | None) -> bytes | None:
    """What :func:`write_cache` put there; None if there is nothing, or not what was written."""
    if file is None:
        return None
    try:
        digest, _, data = file.read_bytes().partition(b"\n")
    except OSError:
        return None
    if sha256(data).encode() != digest:
        log.warning("%s is damaged and is not used", file)
        return None
    return data


def write_cache(file: Path | None, data: bytes) -> None:
    """Keep ``data``, whole or not at all; a cache that cannot be written costs time later and nothing else."""
    if file is None:
        return
    try:
        write_atomic(file, sha256(data).encode() + b"\n" + data)
    except OutputError as error:
        log.warning("nothing is cached: %s", error.what)
