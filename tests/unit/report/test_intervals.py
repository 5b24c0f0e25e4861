"""Intervals over seeds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from floats_edge.report.intervals import figure, interval, seconds, seeds_needed, t95


def test_quantiles_are_student_s() -> None:
    for freedom in (*range(1, 40), 100, 10_000):
        assert t95(freedom) == pytest.approx(t.ppf(0.975, freedom), abs=6e-4)


def test_interval_is_student_s() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.303 / math.sqrt(3))
    assert interval([5.0]) == (5.0, None)


def test_figures() -> None:
    assert figure([1000.0], 0) == "1,000"
    assert figure([1000.0], 0, "+") == "+1,000"
    assert figure([-1.0, -1.0], 1, "+") == "-1.0 ± 0.0"


@pytest.mark.parametrize(
    ("values", "shown"),
    [([0.0], "0"), ([0.047], "0.047"), ([0.41, 0.43], "0.42 ± 0.13"), ([8.0], "8.0"), ([1234.5], "1,234")],
)
def test_times_keep_two_digits(values: list[float], shown: str) -> None:
    assert seconds(values) == shown


def test_seeds_needed_by_hand() -> None:
    assert seeds_needed([1.0, -1.0]) is None
    assert seeds_needed([2.0, 2.0]) == 2
    assert seeds_needed([4.0, 8.0, 6.0]) == 3, (
        "deviation 2: 4.303 * 2 / sqrt(3) is below 6, 12.706 * 2 / sqrt(2) is not"
    )


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_the_seeds_needed_are_the_fewest(mean: float, spread: float) -> None:
    count = seeds_needed([mean - spread, mean + spread])
    assert count is not None

    def half(seeds: int) -> float:
        return t95(seeds - 1) * math.sqrt(2) * spread / math.sqrt(seeds)

    assert half(count) < mean * (1 + 1e-9)
    assert count == 2 or half(count - 1) > mean * (1 - 1e-9)
