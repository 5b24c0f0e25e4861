"""What a user sees when something goes wrong: what happened, why, and what mends it."""

from collections.abc import Callable
from functools import partial

INTERRUPTED = 130
"""Exit code of what was ended from outside."""


def printable(text: str) -> str:
    """``text`` in one line that no terminal obeys: names in it may be a stranger's."""
    return "".join(char if char.isprintable() else " " if char.isspace() else ascii(char)[1:-1] for char in text)


def add_extra(extra: str) -> str:
    """The command that installs an extra of floats-edge, which stands in no package index."""
    return f"pip install '.[{extra}]' in a clone of floats-edge"


class FloatsError(Exception):
    """An expected failure, told to the user in one paragraph and never as a traceback.

    Args:
        what: what happened, as a sentence.
        fix: the exact command or edit that mends it.
    """

    def __init__(self, what: str, *, fix: str) -> None:
        self.what = printable(what)
        self.fix = printable(fix)
        super().__init__(self.what, self.fix)

    def __reduce__(self) -> "tuple[Callable[[str], FloatsError], tuple[str]]":
        """Let a process that reads images hand the error on."""
        return partial(type(self), fix=self.fix), (self.what,)

    def __str__(self) -> str:
        return f"{self.what}\n  Remedy: {self.fix}"


class RecipeError(FloatsError):
    """A recipe or an override of it is not valid."""


class DataError(FloatsError):
    """A data set is missing, empty or damaged."""


class NetworkError(FloatsError):
    """A network cannot be built, conditioned or folded."""


class ArtifactError(FloatsError):
    """A checkpoint, bundle or record is missing, damaged, or belongs to something else."""


class LambdaError(FloatsError):
    """A lambda that is no number, outside [0, 1], or not served by this artifact."""


class BackendError(FloatsError):
    """A backend is not installed, has no device, or failed while building or running."""


class ParityError(FloatsError):
    """An exported network does not compute what the trained one does."""


class OutputError(FloatsError):
    """A result could not be written; what stood there before is untouched."""


class BoardError(FloatsError):
    """A board cannot be reached, lacks something, or sent what is not what was asked for."""
