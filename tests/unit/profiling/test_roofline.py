import pytest

from floats_edge.artifacts.records import Layer, Peaks, Reading, Trace
from floats_edge.profiling.roofline import hold_against

COUNTS = {"operator": "Conv", "share": 0.5, "weights": 10, "nonzeros": 10, "sparse": None}
DENSE = Layer(name="dense", precision="int8", time_us=100, macs=1_000_000, bytes=10_000, **COUNTS)
WIDE = Layer(name="wide", precision="fp32", time_us=100, macs=1_000, bytes=500_000, **COUNTS)
UNCOUNTED = dict.fromkeys(("precision", "macs", "weights", "nonzeros", "bytes", "sparse"))
SHARED = Layer(name="dense + wide", precision=None, time_us=100, macs=1_000_000, bytes=None, **COUNTS)
REST = Layer(name="rest", operator="", time_us=1, share=0, **UNCOUNTED)


def held(int8: float | None, fp32: float | None, gb_s: float | None) -> tuple[Layer, ...]:
    trace = Trace(
        backend="x", batch=1, n=1, source="x", device="cpu", threads=1, peaks=None, layers=(DENSE, WIDE, REST, SHARED)
    )
    peaks = Peaks(
        arithmetic={
            "int8": Reading(value=int8, unit="GFLOP/s", source="x"),
            "fp32": Reading(value=fp32, unit="GFLOP/s", source="x"),
        },
        memory=Reading(value=gb_s, unit="GB/s", source="x"),
    )
    return hold_against(trace, peaks).layers


def test_a_layer_is_bound_by_what_takes_longer_at_the_peaks() -> None:
    dense, wide, rest, shared = held(40, 1, 10)
    assert (dense.gflops, dense.gb_s) == pytest.approx((20, 0.1))
    assert (dense.bound, dense.attainable_us, dense.attained) == ("arithmetic", pytest.approx(50), pytest.approx(0.5))
    assert (wide.gflops, wide.gb_s) == pytest.approx((0.02, 5))
    assert (wide.bound, wide.attainable_us, wide.attained) == ("memory", pytest.approx(50), pytest.approx(0.5))
    assert (shared.gflops, shared.gb_s, shared.attained) == (pytest.approx(20), None, None)
    assert (rest.gflops, rest.bound, rest.attained) == (None, None, None)


def test_a_layer_is_held_against_the_peak_of_its_own_precision() -> None:
    dense, wide, *_ = held(None, 0.001, 10)
    assert (dense.bound, dense.attained) == (None, None)
    assert (wide.bound, wide.attainable_us) == ("arithmetic", pytest.approx(2000))


@pytest.mark.parametrize(("int8", "gb_s"), [(None, 10), (40, None)])
def test_without_a_peak_nothing_is_attainable_and_what_is_attained_stays(
    int8: float | None, gb_s: float | None
) -> None:
    dense, *_ = held(int8, 40, gb_s)
    assert dense.gflops == pytest.approx(20)
    assert (dense.bound, dense.attainable_us, dense.attained) == (None, None, None)
