import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from fixtures.jetson import board

from floats_edge.profiling import peaks
from floats_edge.profiling.peaks import cpu_peaks, fastest_rate, gpu_peaks


def test_the_rate_is_that_of_the_fastest_calls_of_all_threads() -> None:
    naps = iter([0.05, 0.05, 0.01, *[0.05] * 100])
    assert 21 < fastest_rate([lambda: time.sleep(next(naps))]) <= 100  # a sleep may be longer, and is never shorter
    assert 51 < fastest_rate([partial(time.sleep, 0.02)] * 3) <= 150


def test_the_cpu_is_measured_and_says_how() -> None:
    before = dict(os.environ)
    found = cpu_peaks(1, "fp32")
    assert os.environ == before
    for reading, least, most in ((found.arithmetic, 0.5, 1000), (found.memory, 0.1, 1000)):
        assert reading.value is not None
        assert least < reading.value < most
        assert "1 thread," in reading.source
        assert "measured" in reading.source


def dying(threads: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_cannot_be_measured_is_null_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measure_cpu", dying)
    found = cpu_peaks(1, "fp32")
    assert (found.arithmetic.value, found.memory.value) == (None, None)
    assert "SIGKILL" in found.memory.source


def test_float_rates_bound_no_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "run_isolated", lambda function, threads: (None, peaks._unknown("GB/s", "x")))
    assert cpu_peaks(2, "int8").arithmetic.value is None


def test_a_jetson_is_known_by_its_module(tmp_path: Path) -> None:
    nano = gpu_peaks("fp16", board("orin-nano", tmp_path / "nano"))
    assert (nano.arithmetic.value, nano.memory.value) == (16_700, 102)
    assert "Orin Nano 8 GB" in nano.arithmetic.source
    assert "NVIDIA" in nano.memory.source
    thor = gpu_peaks("int8", board("agx-thor", tmp_path / "thor"))
    assert (thor.arithmetic.value, thor.memory.value) == (None, 273)
    assert gpu_peaks("bf16", tmp_path / "thor").arithmetic.value == 258_500


def test_a_device_tree_of_several_modules_tells_none(tmp_path: Path) -> None:
    root = board("orin-nano", tmp_path)
    tree = root / "proc/device-tree/compatible"
    tree.write_text("nvidia,p3768-0000+p3767-0000\0nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    found = gpu_peaks("fp32", root)
    assert (found.arithmetic.value, found.memory.value) == (None, None)
    assert "NVML" in found.memory.source
