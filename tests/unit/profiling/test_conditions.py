import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import psutil
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


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom the permissions of files bind: root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def everything(root: Path) -> dict[str, object]:
    """Conditions and sensors of a machine: what they tell, or why they do not."""
    with open_sensors(root) as sensors:
        return {**read_conditions(root), **{sensor.name: told(sensor) for sensor in sensors}}


def told(sensor: Sensor) -> float | str:
    try:
        return sensor.read()
    except UnreadableError as error:
        return str(error)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Unlike those of pytest, one that others than its owner may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("name", ["orin-nano", "agx-orin-jetpack5", "agx-thor"])
def test_nothing_fails_whatever_may_not_be_read(name: str, open_folder: Path) -> None:
    root = board(name, open_folder)
    for path in sorted(path for path in root.rglob("*") if not path.is_symlink()):
        mode = path.stat().st_mode
        path.chmod(0)
        with unprivileged():
            found = everything(root)
        path.chmod(mode)
        assert found.keys() >= {"CPU", "CPU clock", "clocks", "power mode"}, path


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("class/hwmon/hwmon1/curr1_input", {"power VDD_IN", "power module"}),
        ("class/thermal/thermal_zone8/temp", {"temperature tj"}),
        ("class/thermal/cooling_device5/cur_state", {"throttling gpu-throttle-alert"}),
        ("class/devfreq/17000000.gpu/cur_freq", {"GPU clock"}),
        ("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", {"CPU clock"}),
        ("class/devfreq/17000000.gpu/max_freq", {"GPU clock limits", "clocks"}),
    ],
)
def test_what_may_not_be_read_says_so(file: str, names: set[str], open_folder: Path) -> None:
    root = board("orin-nano", open_folder)
    (root / "sys" / file).chmod(0)
    with unprivileged():
        found = everything(root)
    assert {name for name, what in found.items() if "Permission denied" in str(what)} == names


def test_power_that_may_not_be_read_says_so(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = board("orin-nano", open_folder)
    monkeypatch.setenv("PATH", str(open_folder))
    (root / "sys/class/hwmon/hwmon1/in2_label").chmod(0)
    with unprivileged():
        found = everything(root)
    assert str(found["power module"]).endswith("in2_label: Permission denied; tegrastats is not here")
    assert "power VDD_IN" not in found


def test_cores_that_work_are_counted(tmp_path: Path) -> None:
    with open_sensors(tmp_path) as sensors:
        (busy,) = (sensor for sensor in sensors if sensor.name == BUSY)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        assert 0.5 < busy.read() <= (os.cpu_count() or 1)


def test_cores_that_rest_are_none_and_moments_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, cores = psutil.cpu_times(), os.cpu_count() or 1
    readings = iter(first._replace(idle=first.idle + seconds * cores) for seconds in (0, 0.01, 0.1))
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    with open_sensors(tmp_path) as sensors:
        (busy,) = (sensor for sensor in sensors if sensor.name == BUSY)
    with pytest.raises(UnreadableError, match="too little time has passed"):
        busy.read()
    assert busy.read() == 0


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
