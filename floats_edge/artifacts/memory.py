"""A bound on the memory that files from strangers may ask for, to be asked before any of it is allocated."""

import os
from pathlib import Path

from floats_edge.errors import ArtifactError

MAX_BYTES = "FLOATS_EDGE_MAX_BYTES"
"""Environment variable: how many bytes of memory an artifact may ask for."""
_DEFAULT = 4 * 2**30


def check_bytes(wanted: int, path: Path) -> None:
    """Let ``path`` ask for ``wanted`` bytes of memory, if that is allowed.

    Raises:
        ArtifactError: it is more than :data:`MAX_BYTES` says or, where that is not set, than 4 GiB.
    """
    allowed = _allowed()
    if wanted > allowed:
        raise ArtifactError(
            f"{path} asks for {wanted / 2**20:,.0f} MiB of memory, and {allowed / 2**20:,.0f} are allowed.",
            fix=f"if you trust it and have as much, set {MAX_BYTES}={wanted}",
        )


def _allowed() -> int:
    text = os.environ.get(MAX_BYTES, str(_DEFAULT))
    if not text.isdecimal():
        raise ArtifactError(f"{MAX_BYTES} is {text!r}, no number of bytes.", fix=f"export {MAX_BYTES}={_DEFAULT}")
    return int(text)
