import pytest
from fixtures.records import sampled

from floats_edge.artifacts.records import Sampled
from floats_edge.profiling.energy import run_energy

UNREAD = Sampled(
    unit="W",
    source="hwmon1/in2_label: Permission denied",
    n=0,
    **dict.fromkeys(("before", "minimum", "mean", "maximum", "after")),
)


def power(watts: float | None, n: int = 30) -> Sampled:
    return sampled(unit="W", source="VDD_IN", mean=watts, n=n)


def test_energy_of_an_inference_is_what_it_costs_above_idle() -> None:
    readings = run_energy({"power module": power(9.0)}, {"power module": 5.0}, seconds=2.0, inferences=1000)
    assert readings["energy per inference"].value == pytest.approx((9 - 5) * 2 / 1000 * 1000)
    assert readings["energy per inference"].unit == "mJ"
    assert (readings["power during"].value, readings["power idle"].value) == (9, 5)
    assert "30 samples" in readings["energy per inference"].source


def test_the_whole_module_goes_before_the_gpu() -> None:
    both = {"power GPU": power(50.0), "power module": power(9.0)}
    assert run_energy(both, {"power GPU": 10.0, "power module": 5.0}, 1, 1)["power during"].value == 9


def test_a_module_that_tells_nothing_leaves_it_to_the_gpu() -> None:
    conditions = {"power module": UNREAD, "power GPU": power(50.0)}
    assert run_energy(conditions, {"power module": None, "power GPU": 10.0}, 1, 1)["power during"].value == 50


def test_the_counter_of_energy_goes_before_the_power_that_lags() -> None:
    both = {"power GPU, counted": power(40.0), "power GPU": power(50.0)}
    readings = run_energy(both, {"power GPU, counted": 10.0, "power GPU": 12.0}, seconds=2.0, inferences=1000)
    assert readings["energy per inference"].value == pytest.approx((40 - 10) * 2)
    assert readings["energy per inference"].source == "(power GPU, counted during - idle) × mean time, n = 30 samples"


def test_power_that_lags_says_so_and_why_it_was_taken() -> None:
    both = {"power GPU, counted": UNREAD, "power GPU": power(50.0)}
    energy = run_energy(both, {"power GPU, counted": None, "power GPU": 10.0}, 1, 1)["energy per inference"]
    assert energy.value == pytest.approx(40_000)
    assert "average over the second" in energy.source
    assert "no power GPU, counted: hwmon1/in2_label: Permission denied" in energy.source


@pytest.mark.parametrize(
    ("during", "idle", "reason"),
    [
        ({}, {}, "no power sensor"),
        ({"power module": UNREAD}, {"power module": None}, "in2_label: Permission denied"),
        ({"power GPU": power(50.0, n=2)}, {"power GPU": 5.0}, "only 2 samples"),
        ({"power GPU": power(None, n=0)}, {"power GPU": 5.0}, "only 0 samples"),
        ({"power GPU": power(50.0)}, {"power GPU": None}, "idle power is not known"),
        ({"power GPU": power(5.0)}, {"power GPU": 5.1}, "not above idle: 5 W during, 5.1 W idle"),
    ],
)
def test_unknown_is_null_with_a_reason(during: dict, idle: dict, reason: str) -> None:
    energy = run_energy(during, idle, 1.0, 100)["energy per inference"]
    assert energy.value is None
    assert reason in energy.source
