from pathlib import Path

import pytest
from fixtures.tiny_bundle import CLASSES, write_bundle

from floats_edge.cli.profile import BOARDS
from floats_edge.profiling.estimate import Board, boards, estimate_board, estimate_bundle
from floats_edge.profiling.workload import Workload

PAPER = Board(
    name="paper",
    tera_ops={"fp32": 1.0, "fp16": 10.0, "int8": None},
    memory_gb_s=100,
    cache_mib=1,
    modules=(),
    source="a napkin",
)


def workload(macs: int, weights: int) -> Workload:
    return Workload("stem", "Conv", "fp32", (), macs=macs, weights=weights, nonzeros=weights, inputs=1000, outputs=10)


def test_every_board_has_a_source_and_is_offered() -> None:
    assert tuple(boards()) == BOARDS
    assert all("NVIDIA" in board.source for board in boards().values())


def test_published_figures_follow_from_the_data() -> None:
    nano, nx, agx, thor = (board.tera_ops for board in boards().values())
    assert nano["int8"] is not None
    assert 2 * nano["int8"] == pytest.approx(67, rel=0.01)
    assert nx["int8"] is not None
    assert 2 * nx["int8"] + 80 == pytest.approx(157, rel=0.01)  # two DLAs have 80
    assert agx["int8"] is not None
    assert 2 * agx["int8"] == pytest.approx(170, rel=0.01)
    assert thor["fp16"] == pytest.approx(2070 / 8, rel=0.01)
    for board in boards().values():
        assert board.tera_ops["fp16"] == pytest.approx(8 * board.tera_ops["fp32"], rel=0.01) or board.name.count("Thor")


def test_arithmetic_bounds_a_small_network() -> None:
    found = {(e.precision, e.sparse): e for e in estimate_board([workload(10**9, 1000)], PAPER, batch=4)}
    assert found["fp32", False].latency_ms == pytest.approx(4 * 2e9 / 1e12 * 1000)
    assert found["fp16", True].latency_ms == pytest.approx(found["fp32", False].latency_ms / 20)
    assert {e.bound for e in found.values()} == {"arithmetic"}


def test_weights_that_overflow_the_cache_bound_a_large_one() -> None:
    found = {(e.precision, e.sparse): e for e in estimate_board([workload(1000, 10**8)], PAPER, batch=1)}
    assert found["fp32", False].bound == "memory"
    assert found["fp32", False].latency_ms == pytest.approx((4e8 + 4 * 1010) / 100e9 * 1000)
    assert found["fp16", False].latency_ms == pytest.approx((2e8 + 4 * 1010) / 100e9 * 1000)


def test_what_is_not_published_is_left_out_and_fp32_is_never_sparse() -> None:
    kinds = {(e.precision, e.sparse) for e in estimate_board([workload(1, 1)], PAPER, batch=1)}
    assert kinds == {("fp32", False), ("fp16", False), ("fp16", True)}


def test_of_a_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None)
    found = estimate_bundle(bundle, ["thor"], [1, 8])
    assert {e.batch for e in found} == {1, 8}
    macs = 8 * 8 * 8 * 27 + CLASSES * 8
    first = next(e for e in found if e.precision == "fp32")
    assert first.latency_ms == pytest.approx(2 * macs / 8.06e12 * 1000)
    assert estimate_bundle(bundle, [], [1]) == ()
