"""What may be kept between runs to make the next one faster, and may be deleted at any time."""

import logging
import os
import re
from pathlib import Path

from floats_edge.artifacts.files import sha256, write_atomic
from floats_edge.errors import OutputError

log = logging.getLogger("floats_edge.cache")


def cache_file(*words: str) -> Path | None:
    """The file for what ``words`` identify, in ``$XDG_CACHE_HOME/floats-edge`` (``~/.cache/floats-edge``).

    None, with a remark, for a user without a home: a folder that others can write to is no place for what is trusted.
    """
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        log.warning("nothing is cached: this user has no home directory, and XDG_CACHE_HOME is not set")
        return None
    return Path(root) / "floats-edge" / (re.sub(r"[^\w.+-]", "_", "-".join(words)) + ".cache")


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
