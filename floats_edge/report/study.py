"""A study as tables and as a plot: the three-way trade-off accuracy × robustness × complexity."""

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from floats_edge.artifacts.accuracy import LambdaResult
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.study import Study, Trial
from floats_edge.report.differences import difference_table
from floats_edge.report.envelope import envelope_tables
from floats_edge.report.figures import plain_logarithmic
from floats_edge.report.footing import footing_table
from floats_edge.report.intervals import figure, interval, seconds
from floats_edge.report.tables import Table, attack_name, clean, distance, number

_MARKERS = "os^Dvp*X<>"


def study_tables(study: Study) -> list[Table]:
    """Everything a study says, in the order of a report."""
    trials = _by_variant(study)
    tables = [
        _summary_table(study, trials),
        _curve_table(trials),
        difference_table(study),
        _ratio_table(trials),
        *envelope_tables(study),
        footing_table(study.footing),
        _cost_table(study, trials),
    ]
    return [table for table in tables if table.rows]


def write_study_png(study: Study, path: Path) -> None:
    """Write the trade-off of every variant and what it takes to store it, means over seeds, as an image.

    Raises:
        OutputError: the file system refuses.
    """
    with mpl.rc_context({"text.parse_math": False}):
        canvas = Figure(figsize=(11, 5), layout="constrained")
        curves, costs = canvas.subplots(1, 2)
        for index, (name, trials) in enumerate(_by_variant(study).items()):
            points = [
                [statistics.mean(getattr(result, side).percent for result in results) for side in ("clean", "robust")]
                for results in _by_lambda(trials).values()
            ]
            style = {"color": f"C{index}", "marker": _MARKERS[index % len(_MARKERS)], "label": clean(name)}
            curves.plot(*zip(*points, strict=True), **style)
            volume, half = interval([trial.hypervolume for trial in trials])
            costs.errorbar(trials[0].complexity.bytes / 2**10, volume, yerr=half, capsize=3, linestyle="", **style)
        curves.set(xlabel="clean accuracy %", ylabel=f"robust accuracy %: at most ({attack_name(study.attack)} only)")
        costs.set(xlabel="KiB that serve every λ", ylabel="hypervolume of the sweep over λ")
        plain_logarithmic(costs)
        for axes in (curves, costs):
            axes.grid(visible=True, which="both", alpha=0.3)
        canvas.legend(*curves.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        image = io.BytesIO()
        canvas.savefig(image, format="png", dpi=200)
    write_atomic(path, image.getvalue())


def _summary_table(study: Study, trials: Mapping[str, Sequence[Trial]]) -> Table:
    rows = [
        (
            name,
            f"{group[0].method}, {attack_name(group[0].train_attack)}",
            group[0].sparsity,
            figure([trial.hypervolume for trial in group], 0),
            _alpha(group),
            str(sum(trial.overfitted_epochs for trial in group)),
            str(len(group)),
        )
        for name, group in trials.items()
    ]
    columns = ("variant", "method", "sparsity", "hypervolume", "max |α|", "overfitted epochs", "seeds")
    images = study.trials[0].results[0].clean.total
    notes = (
        f"{study.dataset}, {images:,} {study.split} images; attack: {attack_name(study.attack)}, L∞ ε "
        f"{distance(study.attack.epsilon)}, {study.attack.restarts} restart(s), white-box on the network as served. "
        "Robust accuracy under PGD alone is an upper bound.",
        "Hypervolume: area of the (clean %, robust %) plane dominated by the sweep over lambda, origin as reference. "
        "± is half of a 95 % interval over seeds (Student's t). A variant with one lambda has one point.",
    )
    return _table(f"Trade-off: {study.name}", columns, rows, notes)


def _cost_table(study: Study, trials: Mapping[str, Sequence[Trial]]) -> Table:
    rows = []
    for name, group in trials.items():
        cost = group[0].complexity
        rows.append(
            (
                name,
                f"{cost.parameters:,}",
                f"{cost.nonzeros:,}",
                f"{cost.macs / 1e6:.2f}",
                f"{cost.nonzero_macs / 1e6:.2f}",
                number(cost.bytes / 2**10),
                figure([trial.step_ms for trial in group], 1),
                seconds([trial.train_s for trial in group]),
            )
        )
    columns = (
        "variant",
        "parameters",
        "non-zeros",
        "MMACs",
        "non-zero MMACs",
        "KiB",
        "ms per training step",
        "training s",
    )
    conditions = ", ".join(f"{name} {value}" for name, value in study.conditions.items())
    notes = (
        "MMACs: millions of multiply-accumulates of one image, as served. Masked weights make training and most "
        "hardware no faster; non-zero MMACs are what could be saved. KiB: what serves every lambda, sparse weights "
        "packed, noise by its seed. Times are means over a whole run, one after the other, not interleaved.",
        f"Conditions: {conditions}.",
    )
    return _table("Cost", columns, rows, notes)


def _alpha(group: Sequence[Trial]) -> str:
    alphas = [trial.largest_alpha for trial in group if trial.largest_alpha is not None]
    return f"{statistics.mean(alphas):.3f}" if alphas else "none"


def _curve_table(trials: Mapping[str, Sequence[Trial]]) -> Table:
    rows = [
        (
            name,
            f"{lam:g}",
            figure([result.clean.percent for result in results], 1),
            "≤ " + figure([result.robust.percent for result in results], 1),
        )
        for name, group in trials.items()
        for lam, results in _by_lambda(group).items()
    ]
    return _table("Accuracy over lambda", ("variant", "λ", "clean %", "robust %"), rows)


def _ratio_table(trials: Mapping[str, Sequence[Trial]]) -> Table:
    """Hypervolume of each variant over each other, seed by seed."""
    rows = [
        (
            name,
            *(_ratio(group, other) for other in trials.values()),
        )
        for name, group in trials.items()
    ]
    notes = ("The row's hypervolume over the column's, with the same seed: mean over seeds ± as above.",)
    return _table("Hypervolume, row over column", ("variant", *trials), rows, notes)


def _ratio(group: Sequence[Trial], other: Sequence[Trial]) -> str:
    below = {trial.seed: trial.hypervolume for trial in other}
    ratios = [trial.hypervolume / below[trial.seed] for trial in group if below.get(trial.seed)]
    return figure(ratios, 2) if ratios else "unknown"


def _by_variant(study: Study) -> dict[str, list[Trial]]:
    groups: dict[str, list[Trial]] = {}
    for trial in study.trials:
        groups.setdefault(trial.variant, []).append(trial)
    return groups


def _by_lambda(trials: Sequence[Trial]) -> dict[float, list[LambdaResult]]:
    results: dict[float, list[LambdaResult]] = {}
    for trial in trials:
        for result in trial.results:
            results.setdefault(result.lam, []).append(result)
    return dict(sorted(results.items()))


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], notes: Sequence[str] = ()) -> Table:
    cells = tuple(tuple(map(clean, row)) for row in rows)
    words = {"variant", "method", "sparsity"}
    return Table(clean(title), columns, cells, frozenset(columns) - words, notes=tuple(map(clean, notes)))
