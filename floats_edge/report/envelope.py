"""One network with a knob beside several without: what is given up, what is gained, what both cost."""

from collections.abc import Sequence

from floats_edge.artifacts.study import Study, Trial
from floats_edge.artifacts.tradeoff import Point, area_beyond, envelope_clean, hypervolume
from floats_edge.report.differences import groups_by_seed
from floats_edge.report.intervals import figure, seconds
from floats_edge.report.tables import Table, make_table, number

Pair = tuple[Trial, list[Trial]]
"""The network and those of the envelope, of one seed."""


def envelope_tables(study: Study) -> list[Table]:
    """Two tables for each envelope: over lambda, and of the whole."""
    tables = []
    for name, members in study.envelopes.items():
        envelope = groups_by_seed(study, members)
        others = dict.fromkeys(trial.variant for trial in study.trials if trial.variant not in members)
        pairs = {
            other: [
                (trial, envelope[seed])
                for seed, (trial,) in groups_by_seed(study, (other,)).items()
                if seed in envelope
            ]
            for other in others
        }
        present = {other: found for other, found in pairs.items() if found}
        tables += [_given_up_table(name, members, present), _cost_table(name, members, present)]
    return tables


def _given_up_table(name: str, members: Sequence[str], pairs: dict[str, list[Pair]]) -> Table:
    rows = ((variant, *row) for variant, found in pairs.items() for row in _given_up(found))
    columns = ("variant", "λ", "robust %", "clean %", "clean % given up")
    notes = (
        f"What {' + '.join(members)} offer at equal robust %, less what the variant has there, seed by seed: mean ± "
        "half of a 95 % interval. Below 0, the variant has more. The envelope is the upper right of their convex hull: "
        "which network serves may be drawn anew for each image. It ends at the most robust network.",
    )
    return make_table(f"Clean accuracy given up against {name}", columns, rows, figures=columns[1:], notes=notes)


def _given_up(pairs: Sequence[Pair]) -> list[tuple[str, str, str, str]]:
    rows = []
    for index, lam in enumerate(result.lam for result in pairs[0][0].results):
        points = [trial.points[index] for trial, _ in pairs]
        offered = [envelope_clean(_points(group), point[1]) for point, (_, group) in zip(points, pairs, strict=True)]
        inside = [clean - point[0] for clean, point in zip(offered, points, strict=True) if clean is not None]
        beyond = len(pairs) - len(inside)
        shown = f"beyond the envelope ({beyond} of {len(pairs)} seeds)" if beyond else figure(inside, 1, "+")
        robust, clean = (figure([point[side] for point in points], 1) for side in (1, 0))
        rows.append((f"{lam:g}", f"≤ {robust}", clean, shown))
    return rows


def _cost_table(name: str, members: Sequence[str], pairs: dict[str, list[Pair]]) -> Table:
    count = len(members)
    columns = ("variant", "area beyond", "training s", f"training s of {count}", "KiB", f"KiB of {count}")
    rows = (
        (
            variant,
            figure([area_beyond(trial.points, _best(group)) for trial, group in found], 0),
            seconds([trial.train_s for trial, _ in found]),
            seconds([sum(member.train_s for member in group) for _, group in found]),
            number(found[0][0].complexity.bytes / 2**10),
            number(sum(member.complexity.bytes for member in found[0][1]) / 2**10),
        )
        for variant, found in pairs.items()
    )
    notes = (
        "Area of the (clean %, robust %) plane that the sweep dominates and the best single network (the one of the "
        f"largest hypervolume) does not, seed by seed. Beside it, what one network costs, and the {count} together.",
    )
    return make_table(f"Beyond the best single network of {name}", columns, rows, figures=columns[1:], notes=notes)


def _points(group: Sequence[Trial]) -> list[Point]:
    return [trial.points[0] for trial in group]


def _best(group: Sequence[Trial]) -> Point:
    return max(_points(group), key=lambda point: hypervolume([point]))
