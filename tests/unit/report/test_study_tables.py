"""A study's arithmetic and how it is shown."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floats_edge.artifacts.accuracy import LambdaResult, Share
from floats_edge.artifacts.study import Complexity, Study, Trial, hypervolume
from floats_edge.recipe import Attack
from floats_edge.report.study import interval, study_tables, write_study_png

PERCENT = st.floats(0, 100)
PGD = Attack(kind="pgd", epsilon=0.1, step=None, steps=20)


def trial(variant: str, seed: int, clean: int, robust: int) -> Trial:
    result = LambdaResult(lam=0.5, clean=Share(count=clean, total=100), robust=Share(count=robust, total=100))
    return Trial(
        variant=variant,
        method="float",
        sparsity="dense",
        train_attack=PGD,
        seed=seed,
        weights_sha256="0" * 64,
        results=(result,),
        complexity=Complexity(parameters=1, nonzeros=1, macs=1, nonzero_macs=1, bytes=1024),
        steps=10,
        train_s=2.0,
        largest_alpha=None,
        overfitted_epochs=0,
    )


def study(*trials: Trial) -> Study:
    return Study(name="s", dataset="digits", split="test", attack=PGD, trials=trials, conditions={"device": "cpu"})


def test_hypervolume_of_a_staircase() -> None:
    assert hypervolume([(50, 10), (40, 20), (45, 5)]) == 50 * 10 + 40 * 10
    assert hypervolume([(50, 10)]) == 500
    assert hypervolume([]) == 0


@given(st.lists(st.tuples(PERCENT, PERCENT), max_size=8), st.tuples(PERCENT, PERCENT))
def test_hypervolume_grows_with_points_and_is_bounded(
    points: list[tuple[float, float]], more: tuple[float, float]
) -> None:
    area = hypervolume(points)
    assert area == pytest.approx(hypervolume(points[::-1]))
    assert max([x * y for x, y in points], default=0.0) <= area + 1e-6
    assert area <= hypervolume([*points, more]) + 1e-6 <= 10_000 + 1e-5


def test_interval_is_student_s() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.303 / math.sqrt(3))
    assert interval([5.0]) == (5.0, None)


def test_ratios_are_paired_by_seed() -> None:
    """Each seed's ratio is 2, so that there is no spread, however much the seeds differ."""
    trials = [trial("a", seed, size, 20) for seed, size in ((0, 40), (1, 80))]
    trials += [trial("b", seed, size, 10) for seed, size in ((1, 80), (0, 40))]
    table = next(table for table in study_tables(study(*trials)) if "row over column" in table.title)
    assert table.rows[0] == ("a", "1.00 ± 0.00", "2.00 ± 0.00")


def test_one_seed_shows_no_interval_and_missing_alpha_is_no_zero() -> None:
    summary = study_tables(study(trial("a", 0, 50, 20)))[0]
    row = dict(zip(summary.columns, summary.rows[0], strict=True))
    assert row["hypervolume"] == "1,000"
    assert row["max |α|"] == "none"
    assert any("upper bound" in note for note in summary.notes)


def test_hostile_names_are_harmless(tmp_path: Path) -> None:
    record = study(trial("a\x1b[31m$x^", 0, 50, 20))
    assert "\x1b" not in study_tables(record)[0].rows[0][0]
    write_study_png(record, tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 1000
