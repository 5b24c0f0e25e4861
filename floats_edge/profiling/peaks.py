"""What a device attains at most, as the roof that layers are held against: each figure with how it came about."""

import itertools
import os
import platform
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from floats_edge.artifacts.manifest import Precision
from floats_edge.artifacts.records import Peaks, Reading
from floats_edge.errors import BackendError
from floats_edge.profiling.bench import collection_held_off, sample
from floats_edge.profiling.estimate import Board, boards
from floats_edge.profiling.isolation import environment, run_isolated
from floats_edge.profiling.telemetry.nvml import gpu_arithmetic_peak, gpu_memory_peak
from floats_edge.profiling.telemetry.tegra import compatible_modules

_SECONDS = 0.25
_SIDE = 512
_ARRAY_BYTES, _SLICE_BYTES = 64 * 2**20, 2**20
"""Of each array of the addition, and of what is added at once: three arrays are larger than a last-level cache."""
_ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def cpu_peaks(threads: int | None, precisions: Iterable[Precision]) -> Peaks:
    """Measure the CPU, in a process of its own.

    Args:
        threads: as many as an inference has; None: one per physical core, as ONNX Runtime takes them.
        precisions: of the layers.
    """
    try:
        with environment(_ONE_BLAS_THREAD):  # the threads are ours
            gflops, gb_s = run_isolated(measure_cpu, threads or _physical_cores())
    except BackendError as error:
        reason = f"measuring it failed: {error.what}"
        gflops, gb_s = _unknown("GFLOP/s", reason), _unknown("GB/s", reason)
    return Peaks(arithmetic={precision: _cpu_rate(precision, gflops) for precision in precisions}, memory=gb_s)


def _cpu_rate(precision: Precision, float32: Reading) -> Reading:
    """The float32 rate where ONNX Runtime computes in float32: bf16 is emulated, and x86 has no fp16 kernels."""
    if precision == "int8" or (precision == "fp16" and platform.machine() == "aarch64"):
        return _unknown("GFLOP/s", f"NumPy has no {precision} product to measure with; its float32 rate is no bound")
    return float32


def measure_cpu(threads: int) -> tuple[Reading, Reading]:
    """Rates of a float32 matrix product and of adding arrays that no cache holds, in GFLOP/s and GB/s."""
    how = f"{threads} thread{'s' if threads > 1 else ''}, each thread's fastest in {_SECONDS:g} s, in this run"
    product = f"measured: NumPy's BLAS, float32 {_SIDE} × {_SIDE} × {_SIDE}, {how}"
    adding = (
        f"measured: a = b + c in NumPy, {_SLICE_BYTES // 2**20} MiB at a time of {_ARRAY_BYTES // 2**20} MiB, {how}"
    )
    return (
        Reading(value=2e-9 * _SIDE**3 * fastest_rate(_products(threads)), unit="GFLOP/s", source=product),
        Reading(value=3e-9 * _SLICE_BYTES * fastest_rate(_additions(threads)), unit="GB/s", source=adding),
    )


def gpu_peaks(precisions: Iterable[Precision], root: Path = Path("/")) -> Peaks:
    """By the data sheet of a Jetson module (``boards.yaml``), otherwise by what NVML tells of the first GPU."""
    modules = compatible_modules(root)
    known = [board for board in boards().values() if modules.intersection(board.modules)]
    if len(known) == 1:  # a device tree made for several modules names them all
        board = known[0]
        memory = Reading(value=board.memory_gb_s, unit="GB/s", source=_published(board))
        return Peaks(arithmetic={each: _board_rate(board, each) for each in precisions}, memory=memory)
    return Peaks(arithmetic={each: _other_rate(each) for each in precisions}, memory=gpu_memory_peak())


def _board_rate(board: Board, precision: Precision) -> Reading:
    rate = board.tera_ops.get("fp16" if precision == "bf16" else precision)
    if rate is None:
        return _unknown("GFLOP/s", f"no {precision} figure in boards.yaml for {board.name}")
    return Reading(value=1000 * rate, unit="GFLOP/s", source=_published(board))


def _published(board: Board) -> str:
    return f"{board.name}, at the highest clock of any power mode: {board.source}"


def _other_rate(precision: Precision) -> Reading:
    if precision == "fp32":
        return gpu_arithmetic_peak()
    reason = f"NVML does not tell the {precision} rate of the tensor cores, and boards.yaml has no such GPU"
    return _unknown("GFLOP/s", reason)


def _unknown(unit: str, reason: str) -> Reading:
    return Reading(value=None, unit=unit, source=reason)


def _physical_cores() -> int:
    return min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))


def _products(threads: int) -> list[Callable[[], object]]:
    def one() -> Callable[[], object]:
        left, right, out = (np.ones((_SIDE, _SIDE), dtype=np.float32) for _ in range(3))
        return lambda: np.matmul(left, right, out=out)

    return [one() for _ in range(threads)]


def _additions(threads: int) -> list[Callable[[], object]]:
    def one() -> Callable[[], object]:
        count = max(1, _ARRAY_BYTES // threads // _SLICE_BYTES)
        whole = (np.ones((count, _SLICE_BYTES // 4), dtype=np.float32) for _ in range(3))
        turns = itertools.cycle(zip(*whole, strict=True))

        def add() -> None:
            left, right, out = next(turns)
            np.add(left, right, out=out)

        return add

    return [one() for _ in range(threads)]


def fastest_rate(calls: Sequence[Callable[[], object]]) -> float:
    """Calls per second of functions that run at the same time, a thread each, by the fastest call of each.

    The fastest, because what else runs on the machine only slows calls down, and a roof must not be too low.
    """
    barrier = threading.Barrier(len(calls))

    def fastest(call: Callable[[], object]) -> int:
        call()  # touches its memory
        barrier.wait()
        return int(sample(call, seconds=_SECONDS, minimum=3).min())

    with collection_held_off(), ThreadPoolExecutor(len(calls)) as pool:
        return sum(1e9 / nanoseconds for nanoseconds in pool.map(fastest, calls))
