"""What each variant of a study has more or less than the reference, seed by seed."""

from collections.abc import Callable, Mapping, Sequence

from floats_edge.artifacts.study import Study, Trial
from floats_edge.artifacts.tradeoff import hypervolume
from floats_edge.report.intervals import figure, seeds_needed
from floats_edge.report.tables import UNKNOWN, Table, make_table

Group = Sequence[Trial]
"""Trials of one seed: of one variant, or of all variants of an envelope, whose best counts."""


def _hypervolume(group: Group) -> float | None:
    return hypervolume([point for trial in group for point in trial.points])


def _clean_at_0(group: Group) -> float | None:
    points = [trial.point(0.0) for trial in group]
    return max((point[0] for point in points if point is not None), default=None)


def _robust_at_1(group: Group) -> float | None:
    points = [trial.point(1.0) for trial in group]
    return max((point[1] for point in points if point is not None), default=None)


FIGURES: dict[str, tuple[Callable[[Group], float | None], int]] = {
    "hypervolume": (_hypervolume, 0),
    "clean % at λ 0": (_clean_at_0, 1),
    "robust % at λ 1": (_robust_at_1, 1),
}
"""What is compared, and the digits that it is shown with."""


def difference_table(study: Study) -> Table:
    """Differences of all variants to the reference."""
    members = study.envelopes.get(study.reference, (study.reference,))
    reference = groups_by_seed(study, members)
    others = dict.fromkeys(trial.variant for trial in study.trials if trial.variant not in members)
    rows = (
        (name, what, *_cells(groups_by_seed(study, (name,)), reference, of, digits))
        for name in others
        for what, (of, digits) in FIGURES.items()
    )
    columns = ("variant", "figure", "difference", "seeds", "seeds needed")
    notes = (
        "Mean of the differences with the same seed ± half of its 95 % interval (Student's t). Seeds needed: how many "
        "the interval would take to exclude 0 if mean and spread stayed as they are.",
        "A network without a knob is the same at every λ; of an envelope, the best network counts.",
    )
    return make_table(f"Difference to {study.reference}", columns, rows, figures=columns[2:], notes=notes)


def groups_by_seed(study: Study, variants: Sequence[str]) -> dict[int, list[Trial]]:
    """The trials of some variants by seed; a seed that one of them lacks is left out."""
    groups: dict[int, list[Trial]] = {}
    for trial in study.trials:
        if trial.variant in variants:
            groups.setdefault(trial.seed, []).append(trial)
    return {seed: group for seed, group in groups.items() if len(group) == len(variants)}


def _cells(
    ours: Mapping[int, Group], theirs: Mapping[int, Group], of: Callable[[Group], float | None], digits: int
) -> tuple[str, str, str]:
    pairs = [(of(group), of(theirs[seed])) for seed, group in ours.items() if seed in theirs]
    differences = [one - other for one, other in pairs if one is not None and other is not None]
    if not differences:
        return UNKNOWN, "0", UNKNOWN
    return figure(differences, digits, "+"), str(len(differences)), _needed(differences)


def _needed(differences: Sequence[float]) -> str:
    if len(differences) < 2:
        return f"{UNKNOWN}: one seed"
    needed = seeds_needed(differences)
    return "none would do" if needed is None else f"{needed:,}"
