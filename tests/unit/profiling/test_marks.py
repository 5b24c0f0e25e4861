import numpy as np
import pytest
from fixtures.records import latency, run, sampled

from floats_edge.artifacts.records import Latency, Reading, Sampled
from floats_edge.profiling.bench import Measured
from floats_edge.profiling.marks import comparison_marks, run_marks

STEADY = latency().model_copy(update={"std": 0.01, "mean": 0.41})
SHAKY = latency().model_copy(update={"std": 0.41, "mean": 0.41})


def measured(times: Latency = STEADY, cpu_s: float = 1.0, drift: float = 1.0) -> Measured:
    """A second of inferences that kept one core busy."""
    return Measured(run(latency_ms=times), 0, 1_000_000_000, cpu_s, 120, drift)


def busy(cores: float) -> dict[str, Sampled]:
    return {"cores busy": sampled(unit="cores", minimum=cores, mean=cores, maximum=cores)}


def test_a_quiet_machine_leaves_no_mark() -> None:
    conditions = {"clocks": "locked", "GPU processes": Reading(value=0, unit="others", source="NVML")}
    assert run_marks(measured(), {"GPU clock": sampled(), **busy(1.05)}, conditions) == ()


def test_unknown_conditions_leave_no_mark() -> None:
    unknown = sampled(before=None, minimum=None, mean=None, maximum=None, after=None, n=0)
    conditions = {"clocks": Reading(value=None, unit="", source="no GPU"), "GPU processes": "unknown"}
    assert run_marks(measured(), {"GPU clock": unknown, "cores busy": unknown}, conditions) == ()


@pytest.mark.parametrize(
    ("name", "values", "mark"),
    [
        ("throttling power limit", {"maximum": 1}, "throttled: power limit"),
        ("throttling gpu-throttle-alert", {"maximum": 2}, "throttled: gpu-throttle-alert"),
        ("over-current oc3", {"before": 2, "after": 5}, "throttled: over-current oc3, 3 events"),
        ("GPU clock", {"minimum": 306, "maximum": 1020}, "clocks not locked: GPU clock 306 to 1020 MHz during the run"),
    ],
)
def test_throttling_and_moving_clocks(name: str, values: dict[str, float], mark: str) -> None:
    quiet = {"before": 0, "minimum": 0, "mean": 0, "maximum": 0, "after": 0}
    assert run_marks(measured(), {name: sampled(**quiet | values)}, {}) == (mark,)


def test_a_board_whose_clocks_may_move_is_marked_even_if_they_did_not() -> None:
    assert run_marks(measured(), {}, {"clocks": "not locked (sudo jetson_clocks locks them)"}) == (
        "clocks not locked: they may move",
    )


def test_others_on_the_processor_and_on_the_gpu() -> None:
    others = {"GPU processes": Reading(value=2, unit="others", source="NVML")}
    assert run_marks(measured(), busy(1.8), others) == (
        "busy machine: other processes kept 0.8 cores busy",
        "shared GPU: 2 other processes compute on it",
    )


def test_a_comparison_has_the_marks_that_need_no_single_run() -> None:
    conditions = {"GPU processes": Reading(value=2, unit="others", source="NVML")}
    seen = {"throttling power limit": sampled(maximum=1), "GPU clock": sampled(minimum=306), **busy(2)}
    assert comparison_marks(seen, conditions) == (
        "throttled: power limit",
        "clocks not locked: GPU clock 306 to 1020 MHz during the run",
        "shared GPU: 2 other processes compute on it",
    )


@pytest.mark.parametrize(
    ("sensors", "drift", "cause"),
    [
        ({"throttling power limit": sampled(maximum=1)}, 1.5, "throttling"),
        ({"GPU clock": sampled(minimum=306)} | busy(2), 1.5, "clocks moved"),
        (busy(2), 1.5, "other processes, which took the processor 120 times"),
        (busy(1), 1.5, "the last third took 1.50 × the first"),
        ({}, 1.0, "cannot be told"),
    ],
)
def test_unstable_times_have_their_likely_cause(sensors: dict[str, Sampled], drift: float, cause: str) -> None:
    mark = run_marks(measured(SHAKY, drift=drift), sensors, {})[-1]
    assert mark.startswith("unstable: the times vary by 100%")
    assert cause in mark


def test_variation_is_std_over_mean() -> None:
    assert SHAKY.variation == pytest.approx(1)
    assert np.isclose(STEADY.variation, 0.01 / 0.41)
