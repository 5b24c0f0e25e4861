import platform
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import pytest

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.conditions import read_conditions


def tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


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


def test_on_a_jetson(tmp_path: Path) -> None:
    # The layout and wording of JetPack 6 on an Orin Nano developer kit.
    files = {
        "proc/device-tree/model": b"NVIDIA Jetson Orin Nano Developer Kit\0",
        "etc/nv_tegra_release": b"# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64\nX=y\n",
        "var/lib/nvpmodel/status": b"pmode:0000",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": b"schedutil\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": b"1510400\n",
        "proc/cpuinfo": b"processor\t: 0\nBogoMIPS\t: 62.50\n",
    }
    conditions = read_conditions(tree(tmp_path, files))
    assert conditions["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert str(conditions["Jetson Linux"]).startswith("R36 (release), REVISION: 3.0")
    assert conditions["power mode"] == "pmode:0000"
    assert conditions["CPU governor"] == "schedutil"
    clock, cpu = conditions["CPU clock"], conditions["CPU"]
    assert isinstance(clock, Reading)
    assert (clock.value, clock.unit) == (1510.4, "MHz")
    assert isinstance(cpu, Reading)
    assert cpu.value is None
    assert "no 'model name'" in cpu.source


@pytest.mark.parametrize("name", ["CPU", "CPU governor", "CPU clock", "board", "Jetson Linux", "power mode"])
def test_unknown_is_null_with_a_reason(name: str, tmp_path: Path) -> None:
    condition = read_conditions(tmp_path)[name]
    assert isinstance(condition, Reading)
    assert condition.value is None
    assert "No such file" in condition.source


def test_clock_of_a_virtual_machine_is_labelled(tmp_path: Path) -> None:
    cpuinfo = b"model name\t: AMD EPYC\ncpu MHz\t\t: 2445.404\n"
    conditions = read_conditions(tree(tmp_path, {"proc/cpuinfo": cpuinfo}))
    clock = conditions["CPU clock"]
    assert isinstance(clock, Reading)
    assert clock.value == 2445.404
    assert "nominal in a VM" in clock.source
    assert conditions["CPU"] == "AMD EPYC"
