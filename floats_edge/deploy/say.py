"""How a stage of deployment says what it does."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Told, in a few words, what begins."""


def quiet(_: str) -> None:
    """For whoever does not want to know."""
