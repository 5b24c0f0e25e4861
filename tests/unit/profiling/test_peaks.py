import os
import platform
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from fixtures.jetson import board

from floats_edge.artifacts.records import Reading
from floats_edge.profiling import peaks
from floats_edge.profiling.peaks import cpu_peaks, fastest_rate, gpu_peaks


def test_the_rate_is_that_of_the_fastest_calls_of_all_threads() -> None:
    naps = iter([0.05, 0.05, 0.01, *[0.05] * 100])
    assert 21 < fastest_rate([lambda: time.sleep(next(naps))]) <= 100  # a sleep may be longer, and is never shorter
    assert 51 < fastest_rate([partial(time.sleep, 0.02)] * 3) <= 150


def test_the_cpu_is_measured_and_says_how() -> None:
    before = dict(os.environ)
    found = cpu_peaks(1, ["fp32"])
    assert os.environ == before
    for reading, least, most in ((found.arithmetic["fp32"], 0.5, 1000), (found.memory, 0.1, 1000)):
        assert reading.value is not None
        assert least < reading.value < most
        assert "1 thread," in reading.source
        assert "measured" in reading.source


def dying(threads: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_cannot_be_measured_is_null_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measure_cpu", dying)
    found = cpu_peaks(1, ["fp32"])
    assert (found.arithmetic["fp32"].value, found.memory.value) == (None, None)
    assert "SIGKILL" in found.memory.source


@pytest.mark.parametrize(("machine", "known"), [("x86_64", {"fp32", "fp16", "bf16"}), ("aarch64", {"fp32", "bf16"})])
def test_the_float32_rate_stands_for_what_is_computed_in_float32(
    machine: str, known: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = Reading(value=40, unit="GFLOP/s", source="x"), Reading(value=10, unit="GB/s", source="x")
    monkeypatch.setattr(peaks, "run_isolated", lambda function, threads: rates)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    found = cpu_peaks(2, ["fp32", "fp16", "bf16", "int8"])
    assert {precision for precision, rate in found.arithmetic.items() if rate.value == 40} == known
    assert all(f"no {p} product" in found.arithmetic[p].source for p in found.arithmetic.keys() - known)
    assert found.memory.value == 10


def test_a_jetson_is_known_by_its_module(tmp_path: Path) -> None:
    nano = gpu_peaks(["fp16", "int8"], board("orin-nano", tmp_path / "nano"))
    assert (nano.arithmetic["fp16"].value, nano.memory.value) == (16_700, 102)
    assert nano.arithmetic["int8"].value == 2 * 16_700
    assert "Orin Nano 8 GB" in nano.arithmetic["fp16"].source
    assert "NVIDIA" in nano.memory.source
    thor = gpu_peaks(["int8", "bf16"], board("agx-thor", tmp_path / "thor"))
    assert (thor.arithmetic["int8"].value, thor.memory.value) == (None, 273)
    assert thor.arithmetic["bf16"].value == 258_500


def test_a_device_tree_of_several_modules_tells_none(tmp_path: Path) -> None:
    root = board("orin-nano", tmp_path)
    tree = root / "proc/device-tree/compatible"
    tree.write_text("nvidia,p3768-0000+p3767-0000\0nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    found = gpu_peaks(["fp32"], root)
    assert (found.arithmetic["fp32"].value, found.memory.value) == (None, None)
    assert "NVML" in found.memory.source
