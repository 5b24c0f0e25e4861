"""What reports show, as plain tables that console, Markdown and HTML render alike.

Text in records is a stranger's: control characters are replaced here, and every renderer escapes what it must.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from floats_edge.artifacts.accuracy import Share
from floats_edge.artifacts.records import Comparison, Evaluation, Layer, Profile, Reading, Record, Subject
from floats_edge.recipe import Attack

UNKNOWN = "unknown"

_DEFAULT_STEPS = {"pgd": 0.25, "fgsm-rs": 1.25, "n-fgsm": 1.0}
"""Step over epsilon; see ``attacks.attack``."""


_NOISE = {
    None: "",
    "frozen": "Noise: the frozen draw, as deployed. ",
    "resample": "Noise: a fresh draw for every batch, which is not how it is deployed. ",
}


@dataclass(frozen=True)
class Table:
    """Cells of text under columns.

    Attributes:
        figures: columns that are aligned right.
        details: columns that a console of 80 characters has no room for.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: frozenset[str] = frozenset()
    details: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """Records by a label that tells their subjects apart."""

    evaluations: tuple[tuple[str, Evaluation], ...]
    profiles: tuple[tuple[str, Profile], ...]
    comparisons: tuple[tuple[tuple[str, ...], Comparison], ...] = ()

    @cached_property
    def distinct(self) -> tuple[tuple[str, Evaluation], ...]:
        """The evaluations; those with the same answers, as a run and its bundle give them, once with all labels."""
        groups: list[tuple[list[str], Evaluation]] = []
        for label, record in self.evaluations:
            same = next((labels for labels, other in groups if _answers(other) == _answers(record)), None)
            if same is None:
                groups.append(([label], record))
            else:
                same.append(label)
        return tuple((" = ".join(labels), record) for labels, record in groups)

    @property
    def subjects(self) -> dict[str, Subject]:
        """What was measured, by label."""
        single = {label: record.subject for label, record in (*self.evaluations, *self.profiles)}
        compared = {
            label: subject
            for labels, record in self.comparisons
            for label, subject in zip(labels, record.subjects, strict=True)
        }
        return single | compared


def label_records(records: Sequence[Record]) -> Content:
    """Label records as shortly as their subjects permit; a second record of one kind and subject is numbered."""
    subjects = [record.subjects if isinstance(record, Comparison) else (record.subject,) for record in records]
    names = iter(_label_subjects([subject for group in subjects for subject in group]))
    seen: Counter[tuple[str, str]] = Counter()
    evaluations: list[tuple[str, Evaluation]] = []
    profiles: list[tuple[str, Profile]] = []
    comparisons: list[tuple[tuple[str, ...], Comparison]] = []
    for record, group in zip(records, subjects, strict=True):
        labels = []
        for name in [next(names) for _ in group]:
            seen[record.kind, name] += 1
            number = seen[record.kind, name]
            labels.append(name if number == 1 else f"{name} ({number})")
        if isinstance(record, Evaluation):
            evaluations.append((labels[0], record))
        elif isinstance(record, Profile):
            profiles.append((labels[0], record))
        else:
            comparisons.append((tuple(labels), record))
    return Content(tuple(evaluations), tuple(profiles), tuple(comparisons))


def subject_table(content: Content) -> Table:
    """What was measured."""
    rows = (
        (
            label,
            subject.name,
            subject.model,
            f"{subject.density:.1%}",
            subject.mode or "any lambda",
            subject.precision,
            subject.preprocessing.title,
            f"{subject.sha256[:12]}…",
            subject.path,
        )
        for label, subject in content.subjects.items()
    )
    details = ("images", "weights (sha256)", "path")
    columns = ("subject", "recipe", "model", "density", "lambda mode", "precision", *details)
    return make_table("Subjects", columns, rows, figures=("density",), details=details)


def accuracy_table(content: Content) -> Table:
    """Clean and robust accuracy over lambda."""
    rows = (
        (
            label,
            f"{result.lam:g}",
            share(result.clean),
            f"≤ {share(result.robust)}",
            f"{result.macro[0]:.1f}",
            f"≤ {result.macro[1]:.1f}",
            f"{result.clean.total:,}",
        )
        for label, record in content.distinct
        for result in record.results
    )
    means = ("clean %, mean of classes", "robust %, mean of classes")
    columns = ("subject", "λ", "clean %", "robust %", *means, "images")
    notes = ["In brackets: Wilson 95 % interval of the share of images; it does not cover the choice of seed."]
    notes += [f"{label}: {evaluation_note(record)}" for label, record in content.evaluations]
    return make_table("Accuracy", columns, rows, columns[1:], means, notes)


def evaluation_tables(content: Content) -> list[Table]:
    """What was measured, and its accuracy."""
    return [subject_table(content), accuracy_table(content)]


def number(value: float) -> str:
    """Whole numbers as they are, others with three significant digits, without an exponent unless tiny."""
    if value == round(value):
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def duration(ms: float) -> str:
    """A time, in µs below a millisecond."""
    return f"{number(ms)} ms" if ms >= 1 else f"{number(1000 * ms)} µs"


def layer_label(layer: Layer) -> str:
    """Its name; of many layers that share kernels, the first two."""
    names = layer.name.split(" + ")
    return layer.name if len(names) < 4 else f"{names[0]} + {names[1]} + {len(names) - 2} more"


def reading(figure: Reading) -> tuple[str, str]:
    """Value with unit, and source."""
    if figure.value is None:
        return UNKNOWN, figure.source
    value, unit = figure.value, figure.unit
    if unit == "bytes":
        value, unit = (value / 2**20, "MiB") if value >= 2**20 else (value / 2**10, "KiB")
    return f"{number(value)} {unit}".strip(), figure.source


def share(result: Share) -> str:
    """Percentage with its 95 % interval."""
    low, high = result.interval
    return f"{result.percent:.1f} [{low:.1f}, {high:.1f}]"


def attack_name(attack: Attack) -> str:
    """Short name, such as ``PGD-20`` or ``margin PGD-20``."""
    if attack.kind != "pgd":
        return attack.kind.upper()
    return f"PGD-{attack.steps}" if attack.loss == "cross-entropy" else f"{attack.loss} PGD-{attack.steps}"


def evaluation_attack(record: Evaluation) -> str:
    """Short name of an evaluation's attack, such as ``EOT-10 PGD-20`` of resampled noise."""
    name = attack_name(record.attack)
    return f"EOT-{record.eot} {name}" if record.noise == "resample" else name


def distance(pixels: float) -> str:
    """A distance between images in [0, 1] as people write it: a short decimal, or else ``8/255`` where it is that."""
    decimal, levels = f"{pixels:.4g}", round(255 * pixels)
    return f"{levels}/255" if float(decimal) != pixels and math.isclose(levels, 255 * pixels) else decimal


def effective_step(attack: Attack) -> float:
    """Step size, by default that which ``attacks.attack`` takes."""
    return attack.step or attack.epsilon * _DEFAULT_STEPS[attack.kind]


def evaluation_note(record: Evaluation) -> str:
    """Conditions of an evaluation in one sentence."""
    attack = record.attack
    settings = on_gpu = ""
    if attack.kind != "autoattack":  # which chooses its own
        settings = (
            f"step {distance(effective_step(attack))}, {attack.restarts} restart{'s' if attack.restarts > 1 else ''}, "
        )
    if not record.backend.endswith("-cpu") or "cuda" in record.attacked:
        on_gpu = f"float32 on GPUs: evaluated in {record.float32}, trained in {record.subject.train_float32}. "
    return (
        f"{record.dataset}, {record.split} images, on {record.backend}. Attack: {evaluation_attack(record)}, L∞ ε "
        f"{distance(attack.epsilon)}, {settings}gradients from {record.attacked}, seed {record.seed}. "
        f"{_NOISE[record.noise]}Robust accuracy under this attack alone is an upper bound: read it as 'at most'. "
        f"{on_gpu}Versions: {', '.join(f'{name} {version}' for name, version in record.versions.items())}."
    )


def clean(text: str) -> str:
    """Text of a record on one line, without control characters."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def make_table(
    title: str,
    columns: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    figures: Iterable[str] = (),
    details: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Table:
    """A table of clean text; where all rows are of one subject, the title names it instead of a column."""
    cells = tuple(tuple(map(clean, row)) for row in rows)
    subjects = {row[0] for row in cells}
    if len(subjects) == 1 and columns[0] == "subject" and title != "Subjects":
        title, columns, cells = f"{title} · {subjects.pop()}", columns[1:], tuple(row[1:] for row in cells)
    present = frozenset(columns)
    return Table(
        title, columns, cells, frozenset(figures) & present, frozenset(details) & present, tuple(map(clean, notes))
    )


def _answers(record: Evaluation) -> dict[str, Any]:
    """What a network answered to which attack, by class; how sure it was differs by rounding."""
    counted = {"lam": True, "clean_answers": True, "attacked_answers": True, "withstood": True}
    asked = dict.fromkeys(("dataset", "split", "attack", "noise", "eot", "seed", "transfer", "corruptions"), True)
    return record.model_dump(include={**asked, "results": {"__all__": counted}})


def _label_subjects(subjects: Sequence[Subject]) -> list[str]:
    """A label for each, by the first way of naming under which no two different subjects share one."""
    ways: tuple[Callable[[Subject], tuple[str | None, ...]], ...] = (
        lambda s: (s.kind, s.mode, s.precision),
        lambda s: (s.name, s.kind, s.mode, s.precision),
        lambda s: (s.path, s.mode, s.precision),
        lambda s: (s.path, s.kind, s.mode, s.precision, s.sha256[:8]),
    )
    distinct = sum(subject not in subjects[:index] for index, subject in enumerate(subjects))
    labels: list[str] = []
    for way in ways:
        labels = [clean(" ".join(part for part in way(subject) if part)) for subject in subjects]
        if len(set(labels)) == distinct:
            break
    return labels
