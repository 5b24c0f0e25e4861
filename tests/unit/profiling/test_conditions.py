import os
import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import pytest
from fixtures.jetson import board, lines

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.conditions import BUSY, open_sensors, read_conditions
from floats_edge.profiling.telemetry.sensors import Sensor, UnreadableError


def test_of_this_machine() -> None:
    conditions = read_conditions()
    assert conditions["Python"] == platform.python_version()
    assert str(conditions["ONNX Runtime"]).startswith(onnxruntime.__version__)
    assert conditions["NumPy"] == f"{version('numpy')} (numpy)"
    cores, memory = conditions["cores"], conditions["memory"]
    assert isinstance(cores, Reading)
    assert isinstance(memory, Reading)
    assert cores.value is not None
    assert cores.value >= 1
    assert memory.value is not None
    assert memory.value > 500


def values(sensors: list[Sensor]) -> dict[str, float]:
    return {sensor.name: sensor.read() for sensor in sensors}


def test_on_a_jetson(tmp_path: Path) -> None:
    conditions = read_conditions(board("orin-nano", tmp_path))
    assert conditions["board"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert str(conditions["Jetson Linux"]).startswith("R36 (release), REVISION: 4.3")
    assert conditions["power mode"] == "pmode:0002"
    assert conditions["CPU governor"] == "schedutil"
    assert conditions["GPU clock limits"] == "306 to 1020 MHz"
    assert str(conditions["clocks"]).startswith("not locked")
    cpu = conditions["CPU"]
    assert isinstance(cpu, Reading)
    assert cpu.value is None
    assert "no 'model name'" in cpu.source


def test_sensors_of_a_jetson(tmp_path: Path) -> None:
    with open_sensors(board("agx-thor", tmp_path)) as sensors:
        found = values([sensor for sensor in sensors if sensor.name not in ("temperature gpu", BUSY)])
    assert found["power module"] == 25.53
    assert found["GPU clock"] == 1575
    assert found["CPU clock"] == 2601
    assert found["temperature tj"] == 55.1


def test_a_jetson_whose_sysfs_is_hidden_asks_tegrastats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = board("orin-nano", tmp_path / "root")
    shutil.rmtree(root / "sys/class/hwmon")
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\nwhile true; do echo '{lines('tegrastats-jetpack6.txt')[0]}'; sleep 0.01; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with open_sensors(root) as sensors:
        assert {sensor.name: sensor.read() for sensor in sensors if sensor.unit == "W"}["power module"] == 16.32


def test_cores_that_work_are_counted(tmp_path: Path) -> None:
    with open_sensors(tmp_path) as sensors:
        (busy,) = (sensor for sensor in sensors if sensor.name == BUSY)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        assert 0.5 < busy.read() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("name", ["CPU", "CPU governor", "board", "Jetson Linux", "power mode"])
def test_unknown_is_null_with_a_reason(name: str, tmp_path: Path) -> None:
    condition = read_conditions(tmp_path)[name]
    assert isinstance(condition, Reading)
    assert condition.value is None
    assert "No such file" in condition.source


def test_clock_of_a_virtual_machine_is_labelled(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_bytes(b"model name\t: AMD EPYC\ncpu MHz\t\t: 2445.404\n")
    with open_sensors(tmp_path) as sensors:
        (clock,) = (sensor for sensor in sensors if sensor.name == "CPU clock")
    assert clock.read() == 2445.404
    assert "nominal in a VM" in clock.source
    assert read_conditions(tmp_path)["CPU"] == "AMD EPYC"


def test_a_clock_that_nothing_tells(tmp_path: Path) -> None:
    with open_sensors(tmp_path) as sensors:
        (clock,) = (sensor for sensor in sensors if sensor.name == "CPU clock")
    with pytest.raises(UnreadableError, match="No such file"):
        clock.read()
