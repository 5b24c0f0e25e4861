"""Where a user keeps what can be made or downloaded again."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/floats-edge``, or ``~/.cache/floats-edge``; None for a user without a home."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(root) / "floats-edge"
