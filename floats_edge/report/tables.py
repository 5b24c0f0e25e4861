"""What reports show, as plain tables that console, Markdown and HTML render alike.

Text in records is a stranger's: control characters are replaced here, and every renderer escapes what it must.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from floats_edge.artifacts.records import Evaluation, Latency, Profile, Reading, Record, Run, Share, Subject
from floats_edge.recipe import Attack

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Table:
    """Cells of text under columns; a column whose name is in ``figures`` is aligned right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """Records by a label that tells their subjects apart."""

    evaluations: tuple[tuple[str, Evaluation], ...]
    profiles: tuple[tuple[str, Profile], ...]

    @property
    def subjects(self) -> dict[str, Subject]:
        """What was measured, by label."""
        return {label: record.subject for label, record in (*self.evaluations, *self.profiles)}


def label_records(records: Sequence[Record]) -> Content:
    """Label records as shortly as their subjects permit; a second record of one kind and subject is numbered."""
    names = _label_subjects([record.subject for record in records])
    seen: Counter[tuple[str, str]] = Counter()
    evaluations: list[tuple[str, Evaluation]] = []
    profiles: list[tuple[str, Profile]] = []
    for record, name in zip(records, names, strict=True):
        seen[record.kind, name] += 1
        number = seen[record.kind, name]
        label = name if number == 1 else f"{name} ({number})"
        if isinstance(record, Evaluation):
            evaluations.append((label, record))
        else:
            profiles.append((label, record))
    return Content(tuple(evaluations), tuple(profiles))


def record_tables(content: Content) -> list[Table]:
    """Everything the records say, in the order of a report."""
    tables = [subject_table(content)]
    if content.evaluations:
        tables.append(accuracy_table(content))
    if content.profiles:
        tables += [latency_table(content), start_table(content), memory_table(content), size_table(content)]
        tables.append(condition_table(content))
    if any(record.skipped for _, record in content.profiles):
        tables.append(skipped_table(content))
    return tables


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
            f"{subject.sha256[:12]}…",
            subject.path,
        )
        for label, subject in content.subjects.items()
    )
    columns = ("subject", "recipe", "model", "density", "lambda mode", "precision", "weights (sha256)", "path")
    return _table("Subjects", columns, rows, figures=("density",))


def accuracy_table(content: Content) -> Table:
    """Clean and robust accuracy over lambda."""
    rows = (
        (label, f"{result.lam:g}", share(result.clean), f"≤ {share(result.robust)}", f"{result.clean.total:,}")
        for label, record in content.evaluations
        for result in record.results
    )
    columns = ("subject", "λ", "clean %", "robust %", "images")
    notes = ["In brackets: Wilson 95 % interval of the share of images; it does not cover the choice of seed."]
    notes += [f"{label}: {evaluation_note(record)}" for label, record in content.evaluations]
    return _table("Accuracy", columns, rows, figures=columns[1:], notes=notes)


def latency_table(content: Content) -> Table:
    """Latency of one inference and throughput."""
    rows = []
    for label, record in content.profiles:
        for run in record.runs:
            ms = run.latency_ms
            figures = (ms.p50, ms.p90, ms.p99, ms.mean, ms.std, run.throughput)
            rows.append((label, run.backend, str(run.batch), f"{run.lam:g}", *map(number, figures), f"{ms.n:,}"))
    columns = ("subject", "backend", "batch", "λ", "p50 ms", "p90 ms", "p99 ms", "mean ms", "std ms", "images/s", "n")
    covered = sorted({f"after {run.warmup_s:g} s of warm-up: {run.includes}" for run in _runs(content)})
    notes = [f"One inference at a time, {text}." for text in covered]
    return _table("Latency", columns, rows, figures=columns[2:], notes=notes)


def start_table(content: Content) -> Table:
    """Time to load, to the first inference, and of a switch of lambda."""
    rows = []
    for label, record in content.profiles:
        for run in record.runs:
            times = (number(run.load_ms), number(run.first_inference_ms))
            rows.append((label, run.backend, str(run.batch), *times, *_switch(run.set_lambda_ms)))
    columns = ("subject", "backend", "batch", "load ms", "first inference ms", "set λ p50 ms", "set λ p90 ms", "n")
    notes = ["Loading starts in a fresh process and includes importing the backend's library."]
    return _table("Loading and switching", columns, rows, figures=columns[2:], notes=notes)


def memory_table(content: Content) -> Table:
    """Memory of every run."""
    kinds = tuple(dict.fromkeys(what for run in _runs(content) for what in run.memory))
    rows = []
    for label, record in content.profiles:
        for run in record.runs:
            cells = (reading(run.memory[what])[0] if what in run.memory else UNKNOWN for what in kinds)
            rows.append((label, run.backend, str(run.batch), *cells))
    sources = dict.fromkeys(f"{what}: {figure.source}" for run in _runs(content) for what, figure in run.memory.items())
    notes = [f"{'; '.join(sources)}."]
    return _table("Memory", ("subject", "backend", "batch", *kinds), rows, figures=("batch", *kinds), notes=notes)


def size_table(content: Content) -> Table:
    """Size on disk."""
    rows = [
        (label, part, *reading(figure)) for label, record in content.profiles for part, figure in record.size.items()
    ]
    return _table("Size on disk", ("subject", "part", "size", "source"), rows, figures=("size",))


def condition_table(content: Content) -> Table:
    """What the profiles were taken under."""
    rows = []
    for label, record in content.profiles:
        for name, value in record.conditions.items():
            rows.append((label, name, *(reading(value) if isinstance(value, Reading) else (value, ""))))
    return _table("Conditions", ("subject", "condition", "value", "source"), rows)


def skipped_table(content: Content) -> Table:
    """What was asked for and did not run."""
    rows = [(label, what, why) for label, record in content.profiles for what, why in record.skipped.items()]
    return _table("Not run", ("subject", "what", "why"), rows)


def number(value: float) -> str:
    """Whole numbers as they are, others with three significant digits, without an exponent unless tiny."""
    if value == round(value):
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


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
    """Short name, such as ``PGD-20``."""
    return f"PGD-{attack.steps}" if attack.kind == "pgd" else attack.kind.upper()


def evaluation_note(record: Evaluation) -> str:
    """Conditions of an evaluation in one sentence."""
    attack = record.attack
    restarts = f"{attack.restarts} restart{'s' if attack.restarts > 1 else ''}"
    step = "default step" if attack.step is None else f"step {attack.step:.4g}"
    return (
        f"{record.dataset}, {record.split} images, on {record.backend}. Attack: {attack_name(attack)}, L∞ ε "
        f"{attack.epsilon:.4g}, {step}, {restarts}, gradients from {record.attacked}, seed {record.seed}. "
        "Robust accuracy under this attack alone is an upper bound: read it as 'at most'. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in record.versions.items())}."
    )


def clean(text: str) -> str:
    """Text of a record on one line, without control characters."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _table(
    title: str,
    columns: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    figures: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Table:
    """A table of clean text; where all rows are of one subject, the title names it instead of a column."""
    cells = tuple(tuple(map(clean, row)) for row in rows)
    subjects = {row[0] for row in cells}
    if len(subjects) == 1 and title != "Subjects":
        title, columns, cells = f"{title} · {subjects.pop()}", columns[1:], tuple(row[1:] for row in cells)
    return Table(title, columns, cells, frozenset(figures), tuple(map(clean, notes)))


def _runs(content: Content) -> Iterable[Run]:
    return (run for _, record in content.profiles for run in record.runs)


def _switch(latency: Latency | None) -> tuple[str, str, str]:
    return ("one λ", "", "") if latency is None else (number(latency.p50), number(latency.p90), f"{latency.n:,}")


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
