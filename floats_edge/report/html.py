"""Records as one HTML page."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from floats_edge.artifacts.examples import Pictures
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.records import Evaluation, Profile, Record
from floats_edge.report.classes import class_table, confusion_table
from floats_edge.report.confusion import confusion_svg
from floats_edge.report.corruptions import corruption_tables
from floats_edge.report.examples import example_groups, example_words
from floats_edge.report.figures import energy_svg, latency_svg, layers_svg, memory_svg, trade_off_svg
from floats_edge.report.page import Heading, Highlight, Section, render_page
from floats_edge.report.profile_tables import (
    comparison_tables,
    condition_tables,
    energy_tables,
    estimate_tables,
    layer_tables,
    memory_table,
    size_table,
    speed_tables,
)
from floats_edge.report.reliability import reliability_table
from floats_edge.report.tables import (
    Content,
    accuracy_table,
    clean,
    distance,
    evaluation_attack,
    label_records,
    number,
    subject_table,
)
from floats_edge.report.transfer import transfer_tables


def write_html(records: Sequence[Record], path: Path, pictures: Sequence[Pictures | None] = ()) -> None:
    """Write a report as one page.

    Args:
        records: what it shows.
        path: the page.
        pictures: of each record's examples; None, or fewer than records: there are none.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, render_html(records, pictures).encode())


def render_html(records: Sequence[Record], pictures: Sequence[Pictures | None] = ()) -> str:
    """The page as text; what comes from the records is escaped."""
    content = label_records(records)
    beside = [there for record, there in zip_longest(records, pictures) if isinstance(record, Evaluation)]
    subjects = content.subjects.values()
    models = "; ".join(dict.fromkeys(clean(subject.model) for subject in subjects))
    heading = Heading(
        title=", ".join(dict.fromkeys(clean(subject.name) for subject in subjects)),
        lead=f"{models} · one network, a λ from 0 (clean) to 1 (robust)",
        source="its evaluation and profile records",
    )
    return render_page(heading, highlights(content), sections(content, beside))


def sections(content: Content, pictures: Sequence[Pictures | None]) -> list[Section]:
    """The parts of the page, of what there is; ``pictures`` are those of the evaluations."""
    parts = []
    if content.evaluations:
        parts.append(
            Section(
                "Accuracy over lambda",
                (
                    accuracy_table(content),
                    reliability_table(content),
                    *transfer_tables(content),
                    *corruption_tables(content),
                ),
                trade_off_svg(content),
                "Clean and robust accuracy in percent over lambda, with 95 % intervals",
            )
        )
    beside = {id(record): there for (_, record), there in zip(content.evaluations, pictures, strict=True)}
    for index, (label, record) in enumerate(content.distinct):
        examples = _example_sections(label, record, beside[id(record)])
        parts += [_class_section(label, record, f"confusion{index}"), *examples]
    if content.profiles:
        parts += _profile_sections(content)
    if content.comparisons:
        parts.append(Section("Comparison", tuple(comparison_tables(content))))
    if estimates := estimate_tables(content):
        parts.append(Section("Estimate, not measured", tuple(estimates)))
    conditions = [
        subject_table(content),
        *(condition_tables(content) if content.profiles or content.comparisons else ()),
    ]
    return [*parts, Section("What was measured, and under which conditions", tuple(conditions))]


def _class_section(label: str, record: Evaluation, prefix: str) -> Section:
    svg = confusion_svg(record, prefix)
    words = (
        f"Clean: the share of a class's images that the network names rightly. Robust: the share that it still names "
        f"rightly after the attack, which may change every pixel by up to {distance(record.attack.epsilon)} (black is "
        "0, white is 1) to mislead it. λ is the knob between the two, from 0 (clean) to 1 (robust).",
        "In the picture a row is what the images show and a column what the network said, in percent of the row: blue "
        "is right, orange is taken for another class."
        if svg
        else f"The {len(record.labels):,} classes are too many for a picture of what is taken for what.",
    )
    tables = (class_table(label, record),) if svg else (class_table(label, record), confusion_table(label, record))
    description = "confusion matrices in percent of the true class, clean and attacked"
    return Section(f"Classes · {label}", tables, svg, description, words)


def _example_sections(label: str, record: Evaluation, pictures: Pictures | None) -> list[Section]:
    if record.examples is None:
        return []
    title = f"Images that it got wrong · {label}"
    if pictures is None:
        missing = f"They are not shown: {record.examples.file} is not beside the evaluation."
        return [Section(title, words=(missing,))]
    return [Section(title, words=(example_words(record),), groups=example_groups(record, pictures))]


def _profile_sections(content: Content) -> list[Section]:
    memory = memory_table(content), size_table(content)
    parts = [
        Section("Latency", tuple(speed_tables(content)), latency_svg(content), "p50, p90 and p99 of every run in ms"),
        Section("Memory and size", memory, memory_svg(content), "memory of every run in MiB"),
    ]
    if energy := energy_tables(content):
        parts.append(Section("Energy", tuple(energy), energy_svg(content), "energy per inference of every run in mJ"))
    if layers := layer_tables(content):
        parts.append(Section("Layers", tuple(layers), layers_svg(content), "time of the slowest layers in µs"))
    return parts


def highlights(content: Content) -> list[Highlight]:
    """The ends of the trade-off as deployed, if a bundle was evaluated, and the first run of the first profile."""
    deployed = [(label, r) for label, r in content.evaluations if r.subject.kind == "bundle"] or content.evaluations
    found = [part for label, record in deployed[:1] for part in _accuracy_highlights(label, record)]
    return found + [part for label, record in content.profiles[:1] for part in _profile_highlights(label, record)]


def _accuracy_highlights(label: str, record: Evaluation) -> list[Highlight]:
    first = min(record.results, key=lambda result: result.lam)
    last = max(record.results, key=lambda result: result.lam)
    total = f"{last.clean.total:,} images, {label}"
    attack = f"{evaluation_attack(record)} only, {total}"
    return [
        Highlight(f"clean, λ = {first.lam:g}", f"{first.clean.percent:.1f} %", total),
        Highlight(f"robust, λ = {last.lam:g}", f"≤ {last.robust.percent:.1f} %", attack),
    ]


def _profile_highlights(label: str, record: Profile) -> list[Highlight]:
    run = record.runs[0]
    where = clean(f"{run.backend}, batch {run.batch}, {label}")
    doubt = f" ({', '.join(dict.fromkeys(mark.partition(':')[0] for mark in run.marks))})" if run.marks else ""
    detail = clean(f"n = {run.latency_ms.n:,}, {where}{doubt}")
    found = [Highlight("latency, p50", f"{number(run.latency_ms.p50)} ms", detail)]
    if run.set_lambda_ms is not None:
        switch = run.set_lambda_ms
        found.append(Highlight("switch of λ, p50", f"{number(switch.p50)} ms", f"n = {switch.n:,}, {where}"))
    return found
