"""Records as one HTML page that loads nothing: plots inlined as SVG, styles inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from floats_edge import __version__
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.records import Evaluation, Profile, Record
from floats_edge.report.figures import latency_svg, trade_off_svg
from floats_edge.report.tables import (
    UNKNOWN,
    Content,
    Table,
    accuracy_table,
    attack_name,
    clean,
    condition_table,
    label_records,
    latency_table,
    memory_table,
    number,
    size_table,
    skipped_table,
    start_table,
    subject_table,
)


@dataclass(frozen=True)
class Highlight:
    """A figure worth reading first, with what it was measured on."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Section:
    """A part of the page; ``svg`` is ours, all other text is escaped."""

    title: str
    tables: tuple[Table, ...]
    svg: str = ""
    description: str = ""


def write_html(records: Sequence[Record], path: Path) -> None:
    """Write a report as one page.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, render_html(records).encode())


def render_html(records: Sequence[Record]) -> str:
    """The page as text; what comes from the records is escaped."""
    content = label_records(records)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        resources.files("floats_edge.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    return template.render(
        names=", ".join(dict.fromkeys(clean(subject.name) for subject in content.subjects.values())),
        models="; ".join(dict.fromkeys(clean(subject.model) for subject in content.subjects.values())),
        highlights=highlights(content),
        sections=sections(content),
        unknown=UNKNOWN,
        version=__version__,
    )


def sections(content: Content) -> list[Section]:
    """The parts of the page, of what there is."""
    parts = []
    if content.evaluations:
        parts.append(
            Section(
                "Accuracy over lambda",
                (accuracy_table(content),),
                trade_off_svg(content),
                "Clean and robust accuracy in percent over lambda, with 95 % intervals",
            )
        )
    if content.profiles:
        latency = (latency_table(content), start_table(content))
        parts += [
            Section("Latency", latency, latency_svg(content), "p50, p90 and p99 of every run in ms"),
            Section("Memory and size", (memory_table(content), size_table(content))),
        ]
    conditions = [subject_table(content)]
    if content.profiles:
        conditions.append(condition_table(content))
    if any(record.skipped for _, record in content.profiles):
        conditions.append(skipped_table(content))
    return [*parts, Section("What was measured, and under which conditions", tuple(conditions))]


def highlights(content: Content) -> list[Highlight]:
    """The ends of the trade-off as deployed, if a bundle was evaluated, and the first run of the first profile."""
    deployed = [(label, r) for label, r in content.evaluations if r.subject.kind == "bundle"] or content.evaluations
    found = [part for label, record in deployed[:1] for part in _accuracy_highlights(label, record)]
    return found + [part for label, record in content.profiles[:1] for part in _profile_highlights(label, record)]


def _accuracy_highlights(label: str, record: Evaluation) -> list[Highlight]:
    first = min(record.results, key=lambda result: result.lam)
    last = max(record.results, key=lambda result: result.lam)
    total = f"{last.clean.total:,} images, {label}"
    attack = f"{attack_name(record.attack)} only, {total}"
    return [
        Highlight(f"clean, λ = {first.lam:g}", f"{first.clean.percent:.1f} %", total),
        Highlight(f"robust, λ = {last.lam:g}", f"≤ {last.robust.percent:.1f} %", attack),
    ]


def _profile_highlights(label: str, record: Profile) -> list[Highlight]:
    run = record.runs[0]
    where = clean(f"{run.backend}, batch {run.batch}, {label}")
    found = [Highlight("latency, p50", f"{number(run.latency_ms.p50)} ms", f"n = {run.latency_ms.n:,}, {where}")]
    if run.set_lambda_ms is not None:
        switch = run.set_lambda_ms
        found.append(Highlight("switch of λ, p50", f"{number(switch.p50)} ms", f"n = {switch.n:,}, {where}"))
    return found
