"""Records as one CSV table of single figures: a row is one quantity with its unit, sample size and source."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from floats_edge.artifacts.accuracy import ClassShares, confusions
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.records import Comparison, Evaluation, Profile, Reading, Record, Run, Sampled, Trace
from floats_edge.corruptions import SEVERITIES
from floats_edge.report.tables import Content, clean, label_records

COLUMNS = ("subject", "backend", "batch", "streams", "lambda", "part", "quantity", "value", "unit", "n", "source")

_ACCURACIES = ("clean accuracy", "robust accuracy, upper bound")

Row = tuple[str, ...]


def write_csv(records: Sequence[Record], path: Path) -> None:
    """Write every figure of the records; what is not known has no value, and its reason as source.

    Raises:
        OutputError: the file system refuses.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(tuple(map(_harmless, row)) for row in rows(label_records(records)))
    write_atomic(path, text.getvalue().encode())


def rows(content: Content) -> Iterator[Row]:
    """All figures."""
    for label, record in content.evaluations:
        yield from _evaluation(label, record)
    for label, record in content.profiles:
        yield from _profile(label, record)
    for labels, record in content.comparisons:
        yield from _comparison(labels, record)


def _evaluation(label: str, record: Evaluation) -> Iterator[Row]:
    for result in record.results:
        place = (label, record.backend, "", "", f"{result.lam:g}")
        of_all = ClassShares(result.clean, result.robust)
        parts = {record.split: of_all} | {_class(record, name): both for name, both in result.by_class.items()}
        for part, both in parts.items():
            for name, share in zip(_ACCURACIES, both, strict=True):
                yield (*place, part, name, repr(share.percent), "%", str(share.total), record.dataset)
        for name, mean in zip(_ACCURACIES, result.macro, strict=True):
            part = f"{record.split}, mean of classes"
            yield (*place, part, name, repr(mean), "%", str(result.clean.total), record.dataset)
        for kind, found in (("clean", result.clean_reliability), ("attacked", result.attacked_reliability)):
            part = f"{record.split}, {kind}"
            errors = {"overconfidence": found.overconfidence, "underconfidence": found.underconfidence}
            for name, figure in {"calibration error": found.error, **errors}.items():
                yield (*place, part, name, repr(figure), "%", str(found.images), record.dataset)
        yield from _transfer(place, result.lam, record)
        yield from _corruptions(place, result.lam, record)
        for kind, answers in (("clean", result.clean_answers), ("attacked", result.attacked_answers)):
            for name, answer, count in confusions(answers):
                total, taken = str(result.images[name]), f"{kind}, taken for {answer}"
                yield (*place, _class(record, name), taken, str(count), "images", total, record.dataset)


def _transfer(place: Row, lam: float, record: Evaluation) -> Iterator[Row]:
    transfer = record.transfer
    if transfer is None:
        return
    served = transfer.lambdas.index(lam)
    attackers = (
        *(
            (f"attacked at lambda {attacked:g}", row)
            for attacked, row in zip(transfer.lambdas, transfer.by_lambda, strict=True)
        ),
        ("attacked on the sum over lambda", transfer.by_sum),
        ("every attack", transfer.by_all),
    )
    for name, row in attackers:
        part, percent = f"{record.split}, {name}", transfer.share(row[served]).percent
        yield (*place, part, _ACCURACIES[1], repr(percent), "%", str(transfer.images), record.dataset)


def _corruptions(place: Row, lam: float, record: Evaluation) -> Iterator[Row]:
    found = record.corruptions
    if found is None:
        return
    column = found.lambdas.index(lam)
    figures = {f"mean of {len(found.right)} corruptions": found.mean(column)[0]}
    for name, rows in found.right.items():
        figures[f"{name}, mean of severities"] = found.accuracy(name, column)
        for severity, row in zip(SEVERITIES, rows, strict=True):
            figures[f"{name}, severity {severity}"] = 100 * row[column] / found.images
    for name, percent in figures.items():
        part = f"{record.split}, {name}"
        yield (*place, part, "corrupted accuracy", repr(percent), "%", str(found.images), record.dataset)


def _class(record: Evaluation, name: str) -> str:
    return f"{record.split}, class {name}"


def _profile(label: str, record: Profile) -> Iterator[Row]:
    for run in record.runs:
        yield from _run((label, run.backend, str(run.batch), str(run.streams), f"{run.lam:g}"), run)
    for trace in record.traces:
        yield from _trace((label, trace.backend, str(trace.batch), "", ""), trace)
    for estimate in record.estimates:
        what = f"latency, lower bound on paper, {estimate.precision}{', 2:4' if estimate.sparse else ''}"
        place = (label, estimate.board, str(estimate.batch), "", "", "estimate")
        yield (*place, what, repr(estimate.latency_ms), "ms", "", estimate.source)


def _run(place: Row, run: Run) -> Iterator[Row]:
    parts = {"latency": run.latency_ms, "latency on the device": run.device_ms, "set lambda": run.set_lambda_ms}
    for part, latency in parts.items():
        if latency is not None:
            source = {"latency": run.includes, "latency on the device": run.device_includes}.get(part) or ""
            for name in ("p50", "p90", "p95", "p99", "mean", "std", "minimum", "maximum"):
                yield (*place, part, name, repr(getattr(latency, name)), "ms", str(latency.n), source)
    yield (*place, "throughput", "throughput", repr(run.throughput), "images/s", str(run.latency_ms.n), run.includes)
    yield (*place, "start", "load", repr(run.load_ms), "ms", "1", "")
    yield (*place, "start", "first inference", repr(run.first_inference_ms), "ms", "1", "")
    for part, readings in (("memory", run.memory), ("energy", run.energy)):
        for name, figure in readings.items():
            yield (*place, part, name, *_reading(figure))
    yield from _sampled(place, run.conditions)


def _sampled(place: Row, conditions: Mapping[str, Sampled]) -> Iterator[Row]:
    for name, sampled in conditions.items():
        mean = "" if sampled.mean is None else repr(sampled.mean)
        yield (*place, "condition", f"{name}, mean", mean, sampled.unit, str(sampled.n), sampled.source)


def _trace(place: Row, trace: Trace) -> Iterator[Row]:
    if trace.peaks is not None:
        for precision, peak in trace.peaks.arithmetic.items():
            yield (*place, "attainable", f"arithmetic, {precision}", *_reading(peak))
        yield (*place, "attainable", "memory", *_reading(trace.peaks.memory))
    for layer in trace.layers:
        what = (*place, f"layer {layer.name}")
        yield (*what, "time, median", repr(layer.time_us), "µs", str(trace.n), trace.source)
        rates = (
            ("rate", layer.gflops, "GFLOP/s"),
            ("traffic", layer.gb_s, "GB/s"),
            ("of attainable", layer.attained, ""),
        )
        for name, value, unit in rates:
            if value is not None:
                bound = f"bound by {layer.bound}" if name == "of attainable" else f"{layer.precision} work over time"
                yield (*what, name, repr(value), unit, str(trace.n), bound)


def _comparison(labels: tuple[str, ...], record: Comparison) -> Iterator[Row]:
    for ratio in record.ratios:
        place = (labels[ratio.over], record.backend, str(record.batch), "", f"{record.lambdas[ratio.over]:g}")
        against = f"ratio of latencies against {labels[ratio.under]}"
        for name, value in (("median", ratio.ratio), ("low", ratio.low), ("high", ratio.high)):
            yield (*place, against, name, repr(value), "", str(ratio.pairs), record.method)
    yield from _sampled((" against ".join(labels), record.backend, str(record.batch), "", ""), record.sampled)


def _reading(figure: Reading) -> tuple[str, str, str, str]:
    return "" if figure.value is None else repr(figure.value), figure.unit, "", figure.source


def _harmless(cell: str) -> str:
    """Spreadsheets run cells that begin like a formula; figures are none."""
    text = clean(cell)
    formula = text[:1] in ("=", "+", "-", "@") and not text[1:2].isdigit()
    return f"'{text}" if formula else text
