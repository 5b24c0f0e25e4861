import contextlib
import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from fixtures.jetson import board, lines

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.telemetry import tegra
from floats_edge.profiling.telemetry.sensors import Sensor, UnreadableError


def values(sensors: list[Sensor]) -> dict[str, float]:
    found = {}
    for sensor in sensors:
        with contextlib.suppress(UnreadableError):
            found[sensor.name] = sensor.read()
    return found


# tegrastats


def test_xavier_nx_with_jetpack_5() -> None:
    line = tegra.parse_tegrastats(lines("tegrastats-jetpack5.txt")[0])
    assert line.ram_mib == (3170, 6851)
    assert (line.gpu_percent, line.gpu_mhz) == (0, 114)
    assert line.cpu_mhz == (1397, 1192, 1190, 1190)
    assert line.power_w == {"VDD_IN": 2.76, "VDD_CPU_GPU_CV": 0.65, "VDD_SOC": 0.655}
    assert line.temperature_c["gpu"] == 45.5
    assert line.temperature_c["ao"] == 45


def test_units_that_are_powered_down_have_no_temperature() -> None:
    line = tegra.parse_tegrastats(lines("tegrastats-jetpack5.txt")[1])
    assert line.temperature_c.keys() == {"cpu", "tboard", "soc2", "tdiode", "soc0", "tj", "soc1"}
    assert line.power_w.keys() == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}


def test_without_root_there_is_no_gpu_clock() -> None:
    line = tegra.parse_tegrastats(lines("tegrastats-jetpack5.txt")[2])
    assert (line.gpu_percent, line.gpu_mhz) == (0, None)
    assert line.cpu_mhz == (729,) * 4


def test_orin_with_jetpack_6() -> None:
    nano, agx = map(tegra.parse_tegrastats, lines("tegrastats-jetpack6.txt"))
    assert (nano.gpu_percent, nano.gpu_mhz) == (99, 612)
    assert nano.power_w == {"VDD_IN": 16.32, "VDD_CPU_GPU_CV": 7.1, "VDD_SOC": 3.12}
    assert nano.temperature_c["tj"] == 58.312
    assert agx.power_w == {"VDD_GPU_SOC": 2.41, "VDD_CPU_CV": 1.605, "VIN_SYS_5V0": 4.7}
    assert len(agx.cpu_mhz) == 12


def test_thor_with_jetpack_7() -> None:
    asleep, awake = map(tegra.parse_tegrastats, lines("tegrastats-jetpack7.txt"))
    assert (asleep.gpu_percent, asleep.gpu_mhz) == (None, 0)
    assert "gpu" not in asleep.temperature_c
    assert asleep.power_w == {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4.92, "VIN_SYS_5V0": 4.32}
    assert awake.gpu_mhz == 314
    assert awake.power_w["VIN"] == 25.53
    assert awake.power_w["VDD_CPU_SOC_MSS"] == 7.95
    assert awake.temperature_c["gpu"] == 35.906


def test_a_line_of_something_else_has_nothing() -> None:
    line = tegra.parse_tegrastats("Mem: 7.4Gi used 1.2Gi")
    assert (line.ram_mib, line.gpu_mhz, line.cpu_mhz, line.power_w, line.temperature_c) == (None, None, (), {}, {})


def fake_tool(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)


def test_tegrastats_serves_where_sysfs_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = lines("tegrastats-jetpack6.txt")[0]
    fake_tool(tmp_path, "tegrastats", f"while true; do echo '{line}'; sleep 0.01; done")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with tegra.tegrastats_sensors() as sensors:
        found = values(sensors)
    assert found["power module"] == found["power VDD_IN"] == 16.32
    assert found["GPU clock"] == 612


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "says nothing"),
        ("echo permission denied", "unknown format: 'permission denied'"),
        ("while true; do echo '{\"VDD_IN\": 4.3}'; sleep 0.01; done", "unknown format"),
        ("exec sleep 60", "says nothing"),
    ],
    ids=["ends", "refuses", "speaks in another format", "is silent"],
)
def test_tegrastats_that_tells_of_no_rail_says_why(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tool(tmp_path, "tegrastats", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UnreadableError, match=reason), tegra.tegrastats_sensors(patience_s=0.3):
        pytest.fail("there is nothing to read")


@pytest.mark.parametrize(
    ("rest", "reason"),
    [("exit 0", "has ended"), ("echo 'VDD_IN: 4 W'; exec sleep 60", "unknown format: 'VDD_IN: 4 W'")],
    ids=["ends", "changes its format"],
)
def test_tegrastats_that_tells_no_more_leaves_no_old_values(
    rest: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tool(
        tmp_path, "tegrastats", f"echo '{lines('tegrastats-jetpack6.txt')[0]}'; read -r go < {tmp_path}/go; {rest}"
    )
    os.mkfifo(tmp_path / "go")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with tegra.tegrastats_sensors() as sensors:
        before = values(sensors)
        (tmp_path / "go").write_text("on\n")
        end = time.monotonic() + 5
        while values(sensors) and time.monotonic() < end:
            time.sleep(0.01)
        assert before.keys() >= {"power VDD_IN", "power module", "GPU clock"}
        for sensor in sensors:
            with pytest.raises(UnreadableError, match=reason):
                sensor.read()


def test_power_that_nothing_tells_has_no_value_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with tegra.power_sensors(tmp_path) as (module,), pytest.raises(UnreadableError) as raised:
        module.read()
    assert module.name == "power module"
    assert str(raised.value) == "no INA3221 and no INA238 under /sys/class/hwmon; tegrastats is not here"


# sysfs


def test_rails_of_an_orin_nano(tmp_path: Path) -> None:
    sensors = tegra.rail_sensors(board("orin-nano", tmp_path))
    found = values(sensors)
    assert len(sensors) == len(found), "the sum of the shunt voltages is no rail"
    assert found == pytest.approx(
        {"power VDD_IN": 6.0, "power VDD_CPU_GPU_CV": 1.5, "power VDD_SOC": 1.4, "power module": 6.0}
    )


def test_rails_of_an_agx_orin_with_jetpack_5(tmp_path: Path) -> None:
    sensors = tegra.rail_sensors(board("agx-orin-jetpack5", tmp_path))
    rails = {"power VDD_GPU_SOC": 4.84, "power VDD_CPU_CV": 0.968, "power VIN_SYS_5V0": 4.0}
    assert values(sensors) == pytest.approx(rails | {"power VDDQ_VDD2_1V8AO": 0.3, "power module": sum(rails.values())})
    assert len(sensors) == 5, "what is not connected is no rail"


def test_rails_of_a_thor(tmp_path: Path) -> None:
    sensors = tegra.rail_sensors(board("agx-thor", tmp_path))
    found = values(sensors)
    assert found["power VIN"] == found["power module"] == 25.53
    assert found["power VDD_GPU"] == pytest.approx(4.92)


def test_module_power_is_the_sum_of_the_rails_where_none_feeds_them_all(tmp_path: Path) -> None:
    root = board("agx-thor", tmp_path)
    shutil.rmtree(root / "sys/class/hwmon/hwmon3")
    (total,) = (sensor for sensor in tegra.rail_sensors(root) if sensor.name == "power module")
    assert total.read() == pytest.approx(4.92 + 7.94 + 6.66)
    assert total.source == "VDD_GPU + VDD_CPU_SOC_MSS + VIN_SYS_5V0"


def test_a_container_without_sysfs_has_no_sensors(tmp_path: Path) -> None:
    assert tegra.thermal_sensors(tmp_path) == tegra.throttle_sensors(tmp_path) == []
    with pytest.raises(UnreadableError, match="no INA3221"):
        tegra.rail_sensors(tmp_path)
    assert not tegra.is_jetson(tmp_path)


def test_a_rail_that_goes_away_has_no_value(tmp_path: Path) -> None:
    root = board("orin-nano", tmp_path)
    sensors = tegra.rail_sensors(root)
    (root / "sys/class/hwmon/hwmon1/curr3_input").unlink()
    assert values(sensors).keys() == {"power VDD_IN", "power VDD_CPU_GPU_CV", "power module"}


def test_temperatures_leave_out_what_sleeps(tmp_path: Path) -> None:
    assert values(tegra.thermal_sensors(board("orin-nano", tmp_path / "nano"))) == {
        "temperature cpu": 49.468,
        "temperature tj": 50.531,
    }
    agx = tegra.thermal_sensors(board("agx-orin-jetpack5", tmp_path / "agx"))
    assert values(agx) == {"temperature cpu": 44.5, "temperature tj": 44.343, "temperature tboard": 32}
    with pytest.raises(UnreadableError, match="-256 °C: the unit is powered down"):
        agx[1].read()
    sensors = tegra.thermal_sensors(board("agx-thor", tmp_path / "thor"))
    assert values(sensors) == {"temperature tj": 55.1}
    with pytest.raises(UnreadableError, match="No such file"):
        sensors[1].read()


def test_throttling_is_alerts_and_over_current_and_not_the_fan(tmp_path: Path) -> None:
    assert values(tegra.throttle_sensors(board("orin-nano", tmp_path))) == {
        "throttling gpu-throttle-alert": 0,
        "over-current oc1": 0,
        "over-current oc3": 2,
    }


@pytest.mark.parametrize(
    ("name", "mhz", "memory"), [("orin-nano", 306, None), ("agx-orin-jetpack5", 306, None), ("agx-thor", 1575, 4266)]
)
def test_clocks(name: str, mhz: float, memory: float | None, tmp_path: Path) -> None:
    found = values(tegra.clock_sensors(board(name, tmp_path)))
    assert found["GPU clock"] == mhz
    assert found.get("memory clock") == memory


def test_locked_clocks_are_told_from_free_ones(tmp_path: Path) -> None:
    free = tegra.clock_limits(board("orin-nano", tmp_path / "nano"))
    assert free["GPU clock limits"] == "306 to 1020 MHz"
    assert str(free["clocks"]).startswith("not locked")
    locked = tegra.clock_limits(board("agx-thor", tmp_path / "thor"))
    assert locked["clocks"] == "locked"
    unknown = tegra.clock_limits(tmp_path)["clocks"]
    assert isinstance(unknown, Reading)
    assert unknown.value is None


def test_shared_memory_of_the_gpu(tmp_path: Path) -> None:
    orin = tegra.nvmap_used(board("orin-nano", tmp_path / "nano"))
    assert orin.value == pytest.approx(805_068 / 1024)
    thor = tegra.nvmap_used(board("agx-thor", tmp_path / "thor"))
    assert thor.value is None
    assert "no NvMapMemUsed" in thor.source
    assert tegra.nvmap_used(tmp_path).value is None


def test_power_mode_by_the_tool_and_otherwise_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "\n".join(lines("nvpmodel.txt"))
    assert tegra.parse_power_mode(answer) == "MAXN_SUPER (2)"
    root = board("orin-nano", tmp_path / "nano")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tegra.power_mode(root) == "pmode:0002"
    unknown = tegra.power_mode(tmp_path)
    assert isinstance(unknown, Reading)
    assert "nvpmodel is not here" in unknown.source
    fake_tool(tmp_path, "nvpmodel", f"echo '{answer}'")
    assert tegra.power_mode(root) == "MAXN_SUPER (2)"
    fake_tool(tmp_path, "nvpmodel", "echo 'Unable to open /etc/nvpmodel.conf' >&2; exit 1")
    assert tegra.power_mode(root) == "pmode:0002"
