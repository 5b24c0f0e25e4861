"""What reports show of profiles and comparisons, as plain tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from floats_edge.artifacts.records import Comparison, Latency, Layer, Peaks, Reading, Run, Trace
from floats_edge.report.classes import class_tables
from floats_edge.report.corruptions import corruption_tables
from floats_edge.report.reliability import reliability_table
from floats_edge.report.tables import (
    UNKNOWN,
    Content,
    Table,
    accuracy_table,
    clean,
    duration,
    layer_label,
    make_table,
    number,
    reading,
    subject_table,
)
from floats_edge.report.transfer import transfer_tables

_WIDER = (
    "Types and bytes are those of the graph: ONNX Runtime's CPU kernels may compute in float32, and then move more."
)
_SHARED = (
    "Layers joined by + share kernels: nobody can tell how their time is shared out. Their MACs are added up, unless "
    "each also has a row of its own; what they move is not known."
)
_RUN = ("subject", "backend", "batch", "streams")
_TOP_LAYERS = 12
_ABOVE_THE_ROOF = {
    ("memory", "cpu"): "the data came from a cache",
    ("memory", "gpu"): "the data came from a cache",
    ("arithmetic", "cpu"): "the machine was busier while the peak was measured",
    ("arithmetic", "gpu"): "the kernel computes less than is counted (2:4 kernels leave out zeros, and Winograd's "
    "algorithm multiplies less), or the published peak is not that of this GPU",
}
"""Why a layer may take less time than is attainable, by its bound and the device of the trace."""


def record_tables(content: Content) -> list[Table]:
    """Everything the records say, in the order of a report."""
    tables = [subject_table(content)]
    if content.evaluations:
        tables += [
            accuracy_table(content),
            reliability_table(content),
            *transfer_tables(content),
            *corruption_tables(content),
            *class_tables(content),
        ]
    if content.profiles:
        tables += [*speed_tables(content), *resource_tables(content), *layer_tables(content)]
    if content.comparisons:
        tables += comparison_tables(content)
    tables += estimate_tables(content)
    if content.profiles or content.comparisons:
        tables += condition_tables(content)
    return tables


def speed_tables(content: Content) -> list[Table]:
    """Latencies, what is doubtful about them, and the time to start."""
    return [latency_table(content), *_if_rows(mark_table(content)), start_table(content)]


def comparison_tables(content: Content) -> list[Table]:
    """Ratios of latencies, and what is doubtful about them."""
    return [comparison_table(content), *_if_rows(doubt_table(content))]


def resource_tables(content: Content) -> list[Table]:
    """Memory, energy and size."""
    return [memory_table(content), *energy_tables(content), size_table(content)]


def condition_tables(content: Content) -> list[Table]:
    """Conditions that stay and that change, what could not be read, and what did not run."""
    tables = [condition_table(content), sampled_table(content)]
    return [*tables, *_if_rows(unread_table(content)), *_if_rows(skipped_table(content))]


def latency_table(content: Content) -> Table:
    """Latency of one inference and throughput."""
    rows = []
    on_device = ["device p50 ms"] if any(run.device_ms for _, run in _runs(content)) else []
    for label, run in _runs(content):
        ms = run.latency_ms
        times = map(number, (ms.p50, ms.p90, ms.p95, ms.p99, ms.maximum, ms.mean, ms.std))
        device = [] if not on_device else ["" if run.device_ms is None else number(run.device_ms.p50)]
        threads = "any" if run.threads is None else str(run.threads)
        rates = (f"{ms.variation:.0%}", number(run.throughput), f"{ms.n:,}")
        rows.append((*_key(label, run), threads, f"{run.lam:g}", *times, *device, *rates))
    times = ("p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms", "mean ms", "std ms", *on_device)
    columns = (*_RUN, "threads", "λ", *times, "std/mean", "images/s", "n")
    details = {"λ", "p90 ms", "max ms", "mean ms", "std ms", "threads"}
    covered = sorted({f"after {run.warmup_s:g} s of warm-up: {run.includes}" for _, run in _runs(content)})
    notes = [f"One inference at a time in each stream, {text}." for text in covered]
    if any(run.streams > 1 for _, run in _runs(content)):
        notes.append("Every stream loads the whole network for itself: weights are in memory once per stream.")
    notes += [f"device: {run}." for run in sorted({run.device_includes or "" for _, run in _runs(content)} - {""})]
    notes += [f"{label}: incomplete, {record.incomplete}" for label, record in content.profiles if record.incomplete]
    return make_table("Latency", columns, rows, figures=columns[2:], details=details, notes=notes)


def mark_table(content: Content) -> Table:
    """What makes figures doubtful."""
    rows = [(*_key(label, run), mark) for label, run in _runs(content) for mark in run.marks]
    return make_table("Doubtful", (*_RUN, "what"), rows, figures=("batch", "streams"))


def start_table(content: Content) -> Table:
    """Time to load, to the first inference, and of a switch of lambda."""
    rows = (
        (*_key(label, run), number(run.load_ms), number(run.first_inference_ms), *_switch(run))
        for label, run in _runs(content)
    )
    columns = (*_RUN, "load ms", "first inference ms", "set λ p50 ms", "set λ p90 ms", "n")
    notes = ["Loading starts in a fresh process and includes importing the backend's library."]
    details = ("set λ p90 ms", "n")
    return make_table("Loading and switching", columns, rows, figures=columns[2:], details=details, notes=notes)


def memory_table(content: Content) -> Table:
    """Memory of every run, as far as it could be read."""
    return _reading_table("Memory", content, _memory)


def energy_tables(content: Content) -> list[Table]:
    """Power and energy of every run; none where nothing tells them."""
    return _if_rows(_reading_table("Energy", content, _energy))


def size_table(content: Content) -> Table:
    """Size on disk."""
    rows = [
        (label, part, *reading(figure)) for label, record in content.profiles for part, figure in record.size.items()
    ]
    return make_table("Size on disk", ("subject", "part", "size", "source"), rows, figures=("size",))


def layer_tables(content: Content) -> list[Table]:
    """The layers that take longest, per trace."""
    return [_layer_table(label, trace) for label, record in content.profiles for trace in record.traces]


def _layer_table(label: str, trace: Trace) -> Table:
    rows = [_layer_row(layer) for layer in trace.layers[:_TOP_LAYERS]]
    rest = trace.layers[_TOP_LAYERS:]
    columns = ("layer", "operator", "dtype", "µs", "share", "GFLOP/s", "GB/s", "of attainable", "bound by")
    columns += ("MMAC", "density", "KiB", "2:4 kernel")
    notes = [
        f"{trace.source}, {trace.n} inferences, medians. Traced inferences are slower than the latencies above. MACs "
        "count zeros, and are two operations each; bytes are those of weights, inputs and outputs, each once."
    ]
    if any(" + " in layer.name for layer in trace.layers):
        notes.append(_SHARED)
    if trace.device == "cpu" and any(layer.precision not in (None, "fp32") for layer in trace.layers):
        notes.append(_WIDER)
    if trace.peaks is not None:
        notes += _peak_notes(trace.peaks)
    above = dict.fromkeys(layer.bound for layer in trace.layers if layer.bound and (layer.attained or 0) > 1)
    notes += [f"More than 100 % where {b} is the bound: {_ABOVE_THE_ROOF[b, trace.device]}." for b in above]
    if rest:
        notes.append(f"{len(rest)} more take {sum(layer.share for layer in rest):.1%} together.")
    title = f"Layers on {trace.backend}, batch {trace.batch} · {label}"
    details = ("operator", "GB/s", "MMAC", "KiB", "2:4 kernel")
    figures = (*columns[3:8], *columns[9:])
    return make_table(title, columns, rows, figures=figures, details=details, notes=notes)


def _layer_row(layer: Layer) -> tuple[str, ...]:
    density = layer.nonzeros / layer.weights if layer.nonzeros is not None and layer.weights else None
    known = layer.macs is not None
    return (
        layer_label(layer),
        layer.operator,
        layer.precision or "",
        number(layer.time_us),
        f"{layer.share:.1%}",
        "" if layer.gflops is None else number(layer.gflops),
        "" if layer.gb_s is None else number(layer.gb_s),
        (UNKNOWN if known else "") if layer.attained is None else f"{layer.attained:.0%}",
        layer.bound or "",
        "" if layer.macs is None else number(layer.macs / 1e6),
        "" if density is None else f"{density:.0%}",
        "" if layer.bytes is None else number(layer.bytes / 1024),
        UNKNOWN if layer.sparse is None else "yes" if layer.sparse else "no",
    )


def _peak_notes(peaks: Peaks) -> list[str]:
    """What is attainable, one note for each source."""
    figures = {f"arithmetic in {precision}": peak for precision, peak in peaks.arithmetic.items()}
    by_source: dict[str, list[str]] = {}
    for what, peak in (*figures.items(), ("memory", peaks.memory)):
        by_source.setdefault(peak.source, []).append(f"{what} {reading(peak)[0]}")
    return [f"Attainable: {', '.join(told)} ({source})." for source, told in by_source.items()]


def comparison_table(content: Content) -> Table:
    """Ratios of latencies, with their intervals."""
    rows = []
    for labels, record in content.comparisons:
        for ratio in record.ratios:
            verdict = "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "not told apart"
            over, under = record.lambdas[ratio.over], record.lambdas[ratio.under]
            verdict += "" if over == under else f", at λ {over:g} against λ {under:g}"
            p50 = (number(record.p50_ms[ratio.over]), number(record.p50_ms[ratio.under]))
            interval = f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
            rows.append((labels[ratio.over], labels[ratio.under], interval, verdict, *p50, str(ratio.pairs)))
    columns = ("bundle", "against", "ratio", "it is", "p50 ms", "p50 ms, against", "rounds")
    notes = [
        f"{record.backend}, batch {record.batch}, λ {_lambdas(labels, record)}: {record.method}. In brackets: "
        f"{min(ratio.confidence for ratio in record.ratios):.1%} interval by order statistics of the rounds."
        for labels, record in content.comparisons
    ]
    details = ("p50 ms", "p50 ms, against")
    return make_table("Comparison", columns, rows, figures=("ratio", *columns[4:]), details=details, notes=notes)


def doubt_table(content: Content) -> Table:
    """What makes comparisons doubtful."""
    rows = [(_names(labels), mark) for labels, record in content.comparisons for mark in record.marks]
    return make_table("Doubtful comparisons", ("bundles", "what"), rows)


def estimate_tables(content: Content) -> list[Table]:
    """Lower bounds on paper."""
    rows, sources = [], {}
    for label, record in content.profiles:
        for estimate in record.estimates:
            kind = f"{estimate.precision}, 2:4" if estimate.sparse else estimate.precision
            bound = f"≥ {duration(estimate.latency_ms)}"
            rows.append((label, estimate.board, kind, str(estimate.batch), bound, estimate.bound))
            sources[f"{estimate.board}: {estimate.source}."] = None
    columns = ("subject", "board", "precision", "batch", "latency", "bound by")
    notes = [
        "Estimated from published peak rates, not measured: real latencies are higher, often many times.",
        *sources,
    ]
    return _if_rows(make_table("Estimate", columns, rows, figures=("batch", "latency"), notes=notes))


def condition_table(content: Content) -> Table:
    """What figures were taken under and does not change meanwhile, as far as it could be read."""
    rows = (
        (label, name, *(reading(value) if isinstance(value, Reading) else (value, "")))
        for label, name, value in _conditions(content)
        if not _is_unread(value)
    )
    return make_table("Conditions", ("subject", "condition", "value", "source"), rows)


def unread_table(content: Content) -> Table:
    """What could not be read in any run, and why: a row for each reason."""
    by_reason: dict[tuple[str, str], dict[str, None]] = {}
    for kind, readings in ((" (memory)", _memory), ("", _energy)):
        seen = _seen(content, readings)
        for label, run in _runs(content):
            for what, figure in readings(run).items():
                if what not in seen:
                    by_reason.setdefault((label, figure.source), {})[f"{what}{kind}"] = None
    for label, name, value in _conditions(content):
        if isinstance(value, Reading) and _is_unread(value):
            by_reason.setdefault((label, value.source), {})[name] = None
    rows = ((label, ", ".join(names), reason) for (label, reason), names in by_reason.items())
    return make_table("Could not be read", ("subject", "what", "why"), rows)


def sampled_table(content: Content) -> Table:
    """What changes during runs and comparisons."""
    rows = []
    measured = [(_key(label, run), run.conditions) for label, run in _runs(content)]
    measured += [((_names(labels), r.backend, str(r.batch), "1"), r.sampled) for labels, r in content.comparisons]
    for key, conditions in measured:
        for name, sampled in conditions.items():
            during = map(_optional, (sampled.minimum, sampled.mean, sampled.maximum))
            ends = (_optional(sampled.before), *during, _optional(sampled.after))
            rows.append((*key, f"{name}, {sampled.unit}", *ends, str(sampled.n), sampled.source))
    columns = (*_RUN, "condition", "before", "lowest", "mean", "highest", "after", "samples", "source")
    notes = ["What stands between before and after is of the samples taken during the timed inferences."]
    figures = ("batch", "streams", "before", "lowest", "mean", "highest", "after", "samples")
    details = ("lowest", "highest", "samples", "source")
    return make_table("Conditions over the runs", columns, rows, figures=figures, details=details, notes=notes)


def skipped_table(content: Content) -> Table:
    """What was asked for and did not run."""
    rows = [(label, what, why) for label, record in content.profiles for what, why in record.skipped.items()]
    return make_table("Not run", ("subject", "what", "why"), rows)


def _reading_table(title: str, content: Content, readings: Callable[[Run], Mapping[str, Reading]]) -> Table:
    """A row for each quantity that some run could read, a column for each run, and where the figures come from."""
    runs = list(_runs(content))
    labels = _run_labels(runs)
    rows = []
    for what in _seen(content, readings):
        figures = [readings(run).get(what) for _, run in runs]
        sources = "; ".join(dict.fromkeys(figure.source for figure in figures if figure is not None))
        rows.append((what, *("" if f is None else reading(f)[0] for f in figures), sources))
    subjects = dict.fromkeys(label for label, _ in runs)
    title = f"{title} · {next(iter(subjects))}" if len(subjects) == 1 else title
    return make_table(title, ("quantity", *labels, "source"), rows, figures=labels, details=("source",))


def _memory(run: Run) -> Mapping[str, Reading]:
    return run.memory


def _energy(run: Run) -> Mapping[str, Reading]:
    return run.energy


def _seen(content: Content, readings: Callable[[Run], Mapping[str, Reading]]) -> dict[str, None]:
    """Quantities that some run could read, in their order."""
    told = (item for _, run in _runs(content) for item in readings(run).items())
    return {what: None for what, figure in told if not _is_unread(figure)}


def _is_unread(value: Reading | str) -> bool:
    return isinstance(value, Reading) and value.value is None


def _conditions(content: Content) -> Iterator[tuple[str, str, Reading | str]]:
    compared = [(_names(labels), record) for labels, record in content.comparisons]
    for label, record in (*content.profiles, *compared):
        yield from ((label, name, value) for name, value in record.conditions.items())


def _run_labels(runs: Sequence[tuple[str, Run]]) -> tuple[str, ...]:
    """What tells runs apart: backend, batch, number of streams where there are several, subject likewise."""
    several = len({label for label, _ in runs}) > 1
    labels = []
    for label, run in runs:
        streams = f", {run.streams} streams" if run.streams > 1 else ""
        labels.append(clean(f"{f'{label}, ' if several else ''}{run.backend}, batch {run.batch}{streams}"))
    return tuple(labels)


def _if_rows(table: Table) -> list[Table]:
    return [table] if table.rows else []


def _runs(content: Content) -> Iterator[tuple[str, Run]]:
    return ((label, run) for label, record in content.profiles for run in record.runs)


def _key(label: str, run: Run) -> tuple[str, str, str, str]:
    return label, run.backend, str(run.batch), str(run.streams)


def _switch(run: Run) -> tuple[str, str, str]:
    latency: Latency | None = run.set_lambda_ms
    if latency is None:
        return ("one λ" if run.streams == 1 else "", "", "")
    return number(latency.p50), number(latency.p90), f"{latency.n:,}"


def _names(labels: tuple[str, ...]) -> str:
    return " against ".join(labels)


def _lambdas(labels: tuple[str, ...], record: Comparison) -> str:
    return ", ".join(f"{lam:g} ({label})" for label, lam in zip(labels, record.lambdas, strict=True))


def _optional(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)
