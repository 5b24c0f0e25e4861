"""What points of the plane of clean and robust accuracy are worth."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from floats_edge.artifacts.tradeoff import Point, area_beyond, envelope_clean, hypervolume

PERCENT = st.integers(0, 100).map(float)
POINT = st.tuples(PERCENT, PERCENT)
POINTS = st.lists(POINT, min_size=1, max_size=6)


def test_hypervolume_of_a_staircase() -> None:
    assert hypervolume([(50, 10), (40, 20), (45, 5)]) == 50 * 10 + 40 * 10
    assert hypervolume([(50, 10)]) == 500
    assert hypervolume([]) == 0


@given(st.lists(POINT, max_size=8), POINT)
def test_hypervolume_grows_with_points_and_is_bounded(points: list[Point], more: Point) -> None:
    area = hypervolume(points)
    assert area == pytest.approx(hypervolume(points[::-1]))
    assert max([x * y for x, y in points], default=0.0) <= area + 1e-6
    assert area <= hypervolume([*points, more]) + 1e-6 <= 10_000 + 1e-5


def test_area_beyond_is_what_a_single_network_does_not_dominate() -> None:
    assert area_beyond([(60, 5), (50, 25)], (55, 20)) == (60 - 55) * 5 + (25 - 20) * 50
    assert area_beyond([(50, 20)], (55, 20)) == 0


def test_the_envelope_lies_on_a_line_between_two_networks_and_ends_at_the_most_robust() -> None:
    networks = [(70.0, 0.0), (40.0, 30.0)]
    assert envelope_clean(networks, 0) == 70
    assert envelope_clean(networks, 10) == 60
    assert envelope_clean(networks, 30) == 40
    assert envelope_clean(networks, 30.1) is None
    assert envelope_clean([(70.0, 5.0)], 1) == 70, "more robust than asked for"


def test_networks_below_the_hull_add_nothing() -> None:
    outer = [(70.0, 0.0), (40.0, 30.0)]
    assert envelope_clean([*outer, (50.0, 15.0)], 15) == envelope_clean(outer, 15) == 55
    assert envelope_clean([*outer, (60.0, 15.0)], 15) == 60


@given(POINTS, POINT, st.floats(0, 100), st.floats(0, 100))
def test_an_envelope_falls_with_robustness_and_grows_with_networks(
    networks: list[Point], more: Point, low: float, high: float
) -> None:
    assume(low <= high)
    at_low, at_high = envelope_clean(networks, low), envelope_clean(networks, high)
    if at_high is not None:
        assert at_low is not None
        assert at_low >= at_high - 1e-9
        with_more = envelope_clean([*networks, more], high)
        assert with_more is not None
        assert with_more >= at_high - 1e-9


@given(POINTS, st.integers(0, 5), st.integers(0, 5), st.floats(0, 1))
def test_every_draw_between_two_networks_is_within_the_envelope(
    networks: list[Point], first: int, second: int, share: float
) -> None:
    one, other = networks[first % len(networks)], networks[second % len(networks)]
    clean, robust = (share * a + (1 - share) * b for a, b in zip(one, other, strict=True))
    robust = min(robust, max(one[1], other[1]))  # rounding
    offered = envelope_clean(networks, robust)
    assert offered is not None
    assert offered >= clean - 1e-6
