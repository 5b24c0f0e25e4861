"""What was found where a recipe's images are: how many are read, and what is not, with the reasons."""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict

from floats_edge.errors import printable

EXAMPLES = 3
MOST_NAMED = 100
"""Damaged files that a report names; it counts all."""


class PassedOver(BaseModel):
    """Files that were not read, for one reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str
    files: int
    examples: tuple[str, ...]


class DataReport(BaseModel):
    """The images of a recipe as they were found; a run keeps it.

    Attributes:
        layout: how the images lie there.
        classes: how many.
        train: images to train on; None: nobody asked for them.
        validation: images held out of them; None: nobody asked for them.
        test: images to test on.
        passed_over: what is not read, by reason.
        damaged: images that were left out because they cannot be read or are too thin.
        damaged_files: the first of these, each with the reason.
        remarks: what the user should know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: str
    classes: int
    train: int | None
    validation: int | None
    test: int
    passed_over: tuple[PassedOver, ...] = ()
    damaged: int = 0
    damaged_files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The report, for people."""
        counts = (("to train on", self.train), ("to validate", self.validation), ("to test", self.test))
        found = ", ".join(f"{count:,} {purpose}" for purpose, count in counts if count is not None)
        yield f"Images: {found}; {self.classes} classes; from {self.layout}"
        for remark in self.remarks:
            yield f"  note: {remark}"
        for group in self.passed_over:
            yield f"  passed over: {group.reason}: {group.files:,} ({_examples(group.examples, group.files)})"
        if self.damaged:
            yield f"  left out: {self.damaged:,} ({_examples(self.damaged_files[:EXAMPLES], self.damaged)})"


def passed_over(found: Iterable[tuple[str, str]]) -> tuple[PassedOver, ...]:
    """Group pairs of a reason and a file's name by the reason, the first reason first."""
    groups: dict[str, list[str]] = {}
    for reason, name in found:
        groups.setdefault(reason, []).append(name)
    return tuple(
        PassedOver(reason=reason, files=len(names), examples=tuple(map(printable, sorted(names)[:EXAMPLES])))
        for reason, names in groups.items()
    )


def _examples(names: tuple[str, ...], count: int) -> str:
    return "; ".join(names) + ("; …" if count > len(names) else "")
