"""What may be kept between runs to make the next one faster, and may be deleted at any time."""

import logging
import os
import re
from pathlib import Path

from floats_edge.artifacts.files import sha256, write_atomic
from floats_edge.errors import OutputError

log = logging.getLogger("floats_edge.cache")


def cache_file(*words: str) -> Path:
    """The file for what ``words`` identify, in ``$XDG_CACHE_HOME/floats-edge`` (``~/.cache/floats-edge``)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "floats-edge" / (re.sub(r"[^\w.+-]", "_", "-".join(words)) + ".cache")


def read_cache(file: Path) -> bytes | None:
    """What :func:`write_cache` put there; None if there is nothing, or not what was written."""
    try:
        digest, _, data = file.read_bytes().partition(b"\n")
    except OSError:
        return None
    if sha256(data).encode() != digest:
        log.warning("%s is damaged and is not used", file)
        return None
    return data


def write_cache(file: Path, data: bytes) -> None:
    """Keep ``data``, whole or not at all; a cache that cannot be written costs time later and nothing else."""
    try:
        write_atomic(file, sha256(data).encode() + b"\n" + data)
    except OutputError as error:
        log.warning("nothing is cached: %s", error.what)
