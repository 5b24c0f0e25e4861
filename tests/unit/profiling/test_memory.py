from pathlib import Path

import numpy as np
import psutil
import pytest
from fixtures.predictors import BALLAST, Heavy, Sleeping

from floats_edge.profiling import memory
from floats_edge.profiling.bench import Timing, measure_run
from floats_edge.profiling.isolation import run_isolated
from floats_edge.profiling.memory import process_memory

BRIEF = Timing(warmup_s=0, duration_s=0, minimum=2)
MIB = BALLAST / 2**20


def test_resident_memory_agrees_with_psutil() -> None:
    reading = process_memory("VmRSS")
    assert reading.value == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.01)


def test_peak_counts_what_the_network_took_even_for_a_moment() -> None:
    light = run_isolated(measure_run, Sleeping, 1, BRIEF).run.memory["process increase"].value
    heavy = run_isolated(measure_run, Heavy, 1, BRIEF).run.memory["process increase"].value
    assert light is not None
    assert heavy is not None
    assert heavy - light == pytest.approx(2 * MIB, rel=0.1)


def test_peak_does_not_count_what_this_process_holds() -> None:
    ballast = np.ones(8 * BALLAST, dtype=np.uint8)
    readings = run_isolated(measure_run, Sleeping, 1, BRIEF).run.memory
    peak = readings["process peak"].value
    assert peak is not None
    assert peak < ballast.nbytes / 2**20 / 2
    assert "VmHWM" in readings["process peak"].source


@pytest.mark.parametrize(("text", "reason"), [(None, "No such file"), ("VmRSS:\t  512 kB\n", "has no VmHWM")])
def test_unknown_is_null_with_a_reason(
    text: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "status").write_text(text)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    reading = process_memory("VmHWM")
    assert reading.value is None
    assert reason in reading.source
    readings = memory.memory_readings(memory.footprint())
    assert readings["process increase"].value is None
    assert reason in readings["process increase"].source
