"""Plots of records: the trade-off over lambda and the spread of latencies, as SVG to inline or as one PNG."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from floats_edge.artifacts.accuracy import Share
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.records import Evaluation, Reading, Record, Run
from floats_edge.errors import OutputError
from floats_edge.report.confusion import confusion_height, draw_confusions, is_drawable
from floats_edge.report.style import CLEAN, INK, LATENCY, PAPER, ROBUST, STYLE, WIDTH, Draw, as_svg
from floats_edge.report.tables import Content, clean, evaluation_attack, label_records, layer_label, number

_STROKES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
_LABEL_LENGTH = 44
_TOP_LAYERS = 12


def trade_off_svg(content: Content) -> str:
    """Clean and robust accuracy over lambda, as an ``<svg>`` element."""
    return as_svg(partial(_alone, draw_trade_off, content), _trade_off_height(content), "tradeoff")


def latency_svg(content: Content) -> str:
    """Latency of every run, as an ``<svg>`` element."""
    return as_svg(partial(_alone, draw_latency, content), _latency_height(content), "latency")


def memory_svg(content: Content) -> str:
    """What every run added to the memory of its process and of the GPU, as an ``<svg>`` element; empty if unknown."""
    return _bars_svg(_readings(content, lambda run: run.memory, ("process increase", "GPU increase")), "MiB", "memory")


def energy_svg(content: Content) -> str:
    """Energy per inference above idle of every run, as an ``<svg>`` element; empty if unknown."""
    return _bars_svg(_readings(content, lambda run: run.energy, ("energy per inference",)), "mJ", "energy")


def layers_svg(content: Content) -> str:
    """The slowest layers of the first trace, as an ``<svg>`` element; empty without a trace."""
    trace = next((trace for _, record in content.profiles for trace in record.traces), None)
    if trace is None:
        return ""
    slowest = trace.layers[:_TOP_LAYERS]
    bars = [(clean(layer_label(layer)), layer.time_us) for layer in slowest]
    roofs = [layer.attainable_us for layer in slowest]
    known = "" if all(layer.attainable_us for layer in slowest if layer.macs) else ", where it is known"
    attainable = f"; line: attainable{known}" if any(roofs) else ""
    unit = f"µs per inference, {trace.backend}, batch {trace.batch}. Bar: measured{attainable}"
    return _bars_svg(bars, unit, "layers", roofs)


def write_png(records: Sequence[Record], path: Path) -> None:
    """Write the plots of a report as one image.

    Raises:
        OutputError: there is nothing to plot, or the file system refuses.
    """
    content = label_records(records)
    plots: list[tuple[Draw, float, str]] = []
    if content.distinct:
        plots.append((partial(_alone, draw_trade_off, content), _trade_off_height(content), "Accuracy over lambda"))
    for label, record in content.distinct:
        if is_drawable(record):
            height, title = confusion_height(record), f"Confusions, in percent of each class · {label}"
            plots.append((partial(draw_confusions, record=record), height, title))
    if content.profiles:
        plots.append((partial(_alone, draw_latency, content), _latency_height(content), "Latency"))
    if not plots:
        raise OutputError(
            "there is nothing to plot in these records.",
            fix="name an evaluation or a profile, or write --html, --markdown or --csv",
        )
    heights = [height + 0.3 for _, height, _ in plots]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(plots), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, (draw, _, title) in zip(parts, plots, strict=True):
            draw(part)
            part.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=200)
    write_atomic(path, image.getvalue())


def draw_trade_off(axes: Axes, content: Content) -> None:
    """Accuracy over lambda with 95 % intervals; subjects differ by stroke and marker, and by a small shift."""
    for index, (_, record) in enumerate(content.distinct):
        shift = 0.014 * (index - (len(content.distinct) - 1) / 2)
        results = sorted(record.results, key=lambda result: result.lam)
        lambdas = [result.lam + shift for result in results]
        for colour, shares in ((CLEAN, [r.clean for r in results]), (ROBUST, [r.robust for r in results])):
            percent = [share.percent for share in shares]
            axes.errorbar(lambdas, percent, _margins(shares), elinewidth=1, capsize=2, **_look(index, colour))
    axes.set(xlim=(-0.04, 1.04), ylim=(0, 102), xlabel="λ", ylabel="accuracy %")
    axes.set_xticks(sorted({result.lam for _, record in content.distinct for result in record.results}))
    _name_curves(axes, [record for _, record in content.distinct])
    if len(content.distinct) > 1:
        names = [_short(label) for label, _ in content.distinct]
        handles = [Line2D([], [], label=name, **_look(index, INK)) for index, name in enumerate(names)]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, handlelength=3)


def draw_latency(axes: Axes, content: Content) -> None:
    """One row per run: a dot at p50, a thick line to p90, a thin one to p99, in ms."""
    runs = _labelled_runs(content)
    for row, (_, run) in enumerate(runs):
        ms = run.latency_ms
        axes.hlines(row, ms.p50, ms.p99, color=LATENCY, linewidth=1.4)
        axes.hlines(row, ms.p50, ms.p90, color=LATENCY, linewidth=4.5, alpha=0.45)
        axes.plot(ms.p50, row, "o", color=LATENCY, markersize=6.5)
        axes.plot(ms.p99, row, "|", color=LATENCY, markersize=7)
        axes.annotate(
            f"{number(ms.p50)} ms", (ms.p50, row), (0, 6), textcoords="offset points", ha="center", va="bottom"
        )
    axes.set_yticks(range(len(runs)), [_short(label) for label, _ in runs])
    axes.set_ylim(len(runs) - 0.5, -0.7)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    highest = max(run.latency_ms.p99 for _, run in runs)
    if highest > 30 * min(run.latency_ms.p50 for _, run in runs):
        plain_logarithmic(axes)
    else:
        axes.set_xlim(0, highest * 1.08)
    axes.set_xlabel("ms per inference: p50 ●, p90 ▬, p99 |")


def plain_logarithmic(axes: Axes) -> None:
    """Make the x axis logarithmic, its ticks plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _readings(
    content: Content, readings: Callable[[Run], Mapping[str, Reading]], names: Sequence[str]
) -> list[tuple[str, float]]:
    """Known readings of every run, under the run's label."""
    bars = []
    for label, run in _labelled_runs(content):
        for name in names:
            figure = readings(run).get(name)
            if figure is not None and figure.value is not None:
                bars.append((f"{label}\n{clean(name)}", figure.value))
    return bars


def _bars_svg(bars: Sequence[tuple[str, float]], unit: str, prefix: str, limits: Sequence[float | None] = ()) -> str:
    """One bar per figure, with its value at the end and a line at its limit; empty without figures."""

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.barh(range(len(bars)), [value for _, value in bars], height=0.55, color=LATENCY, alpha=0.75)
        axes.set_yticks(range(len(bars)), [_short(label) for label, _ in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        ends = [max(value, limit or 0) for (_, value), limit in zip_longest(bars, limits)]
        for row, limit in enumerate(limits):
            if limit is not None:
                axes.vlines(limit, row - 0.38, row + 0.38, color=ROBUST, linewidth=2)
        for row, (end, (_, value)) in enumerate(zip(ends, bars, strict=True)):
            axes.annotate(number(value), (end, row), (5, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, max(ends) * 1.12 or 1)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(clean(unit))

    lines = sum(label.count("\n") + 1 for label, _ in bars)
    return as_svg(draw, 0.75 + 0.12 * len(bars) + 0.17 * lines, prefix) if bars else ""


def _alone(draw: Callable[[Axes, Content], None], content: Content, figure: FigureBase) -> None:
    """Draw one plot on the whole of ``figure``."""
    draw(figure.subplots(), content)


def _trade_off_height(content: Content) -> float:
    return 3.5 + 0.2 * (len(content.distinct) > 1) * ((len(content.distinct) + 1) // 2)


def _latency_height(content: Content) -> float:
    return 0.75 + 0.5 * len(_labelled_runs(content))


def _margins(shares: Sequence[Share]) -> list[list[float]]:
    """Distances from the percentages down to the lower and up to the upper bounds: ``[2, n]``; rounding may cross 0."""
    bounds = [(share.percent, *share.interval) for share in shares]
    return [[max(0.0, p - low) for p, low, _ in bounds], [max(0.0, high - p) for p, _, high in bounds]]


def _look(index: int, colour: str) -> dict[str, Any]:
    """Line and marker of the subject at ``index``: the first filled, the others hollow."""
    return {
        "color": colour,
        "linestyle": _STROKES[index % len(_STROKES)],
        "linewidth": 1.5,
        "marker": _MARKERS[index % len(_MARKERS)],
        "markersize": 4.5,
        "markerfacecolor": PAPER if index else colour,
    }


def _name_curves(axes: Axes, records: Sequence[Evaluation]) -> None:
    """Name the two measures at the right end of the first subject's curves, kept apart where the curves meet."""
    last = max(records[0].results, key=lambda result: result.lam)
    attacks = {evaluation_attack(record) for record in records}
    attack = f"({attacks.pop()} only)" if len(attacks) == 1 else "(see the notes)"
    upper, lower = last.clean.percent, last.robust.percent
    if upper - lower < 16:
        middle = min(max((upper + lower) / 2, 12), 88)
        upper, lower = middle + 8, middle - 8
    for height, colour, text in ((upper, CLEAN, "clean"), (lower, ROBUST, f"robust: at most\n{attack}")):
        axes.text(1.06, height, text, color=colour, va="center", fontweight="bold", clip_on=False)


def _labelled_runs(content: Content) -> list[tuple[str, Run]]:
    """Runs by backend, batch and streams, and by subject where there are several."""
    several = len(content.profiles) > 1
    labelled = []
    for subject, record in content.profiles:
        for run in record.runs:
            streams = f", {run.streams} streams" if run.streams > 1 else ""
            label = clean(f"{run.backend}, batch {run.batch}{streams}")
            labelled.append((f"{label}\n{subject}" if several else label, run))
    return labelled


def _short(label: str) -> str:
    return "\n".join(
        line if len(line) <= _LABEL_LENGTH else f"…{line[1 - _LABEL_LENGTH :]}" for line in label.split("\n")
    )
