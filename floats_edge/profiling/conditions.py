"""What a measurement was taken under: machine, clocks, power mode, versions. What is not known says why."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil

from floats_edge import __version__
from floats_edge.artifacts.records import Reading
from floats_edge.profiling.bench import IMAGE_SEED
from floats_edge.profiling.telemetry.nvml import gpu_state

Conditions = dict[str, Reading | str]

_CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "NumPy": ("numpy",),
    "ONNX Runtime": ("onnxruntime", "onnxruntime-gpu"),
    "TensorRT": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "TensorRT-RTX": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}


def read_conditions(root: Path = Path("/")) -> Conditions:
    """Conditions in force now, by name; ``root`` is where ``/proc`` and ``/sys`` stand."""
    return {
        "CPU": _cpuinfo(root, "model name"),
        "cores": _cores(),
        "CPU governor": _file(root, f"{_CPUFREQ}/scaling_governor"),
        "CPU clock": _cpu_clock(root),
        "load average": _load_average(),
        "memory": Reading(
            value=psutil.virtual_memory().total / 2**20, unit="MiB", source="psutil.virtual_memory, physical"
        ),
        "threads": os.environ.get("OMP_NUM_THREADS", "OMP_NUM_THREADS is not set: the backend decides"),
        **gpu_state(),
        "board": _file(root, "proc/device-tree/model"),
        "Jetson Linux": _file(root, "etc/nv_tegra_release"),
        "power mode": _file(root, "var/lib/nvpmodel/status"),
        "images": f"uniform in [0, 1), seed {IMAGE_SEED}",
        "floats-edge": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        **{name: _version(packages) for name, packages in _PACKAGES.items()},
    }


def _unknown(unit: str, reason: str) -> Reading:
    return Reading(value=None, unit=unit, source=reason)


def _file(root: Path, name: str) -> Reading | str:
    """First line of a file of the system; device-tree strings end in NUL."""
    try:
        lines = (root / name).read_text(encoding="utf-8", errors="replace").rstrip("\0\n ").splitlines()
    except OSError as error:
        return _unknown("", f"/{name}: {error.strerror}")
    return lines[0].strip("# ") if lines else _unknown("", f"/{name} is empty")


def _cpuinfo(root: Path, field: str) -> Reading | str:
    """A field of the first core in ``/proc/cpuinfo``; ARM kernels give neither name nor clock there."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return _unknown("", f"/proc/cpuinfo: {error.strerror}")
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
    return values[0] if values else _unknown("", f"/proc/cpuinfo has no {field!r} on {platform.machine()}")


def _cores() -> Reading:
    allowed = len(os.sched_getaffinity(0))
    return Reading(value=allowed, unit="logical cores", source=f"sched_getaffinity, of {os.cpu_count()} in the machine")


def _cpu_clock(root: Path) -> Reading:
    """The clock of the first core, in MHz: by cpufreq, else what the kernel states, which under a VM is nominal."""
    khz = _file(root, f"{_CPUFREQ}/scaling_cur_freq")
    if isinstance(khz, str):
        return Reading(value=float(khz) / 1000, unit="MHz", source="cpufreq scaling_cur_freq, before the runs")
    mhz = _cpuinfo(root, "cpu MHz")
    if isinstance(mhz, str):
        return Reading(value=float(mhz), unit="MHz", source="/proc/cpuinfo, before the runs; nominal in a VM")
    return _unknown("MHz", f"{khz.source}; {mhz.source}")


def _load_average() -> Reading:
    return Reading(value=os.getloadavg()[0], unit="processes", source="os.getloadavg, last minute, before the runs")


def _version(packages: tuple[str, ...]) -> Reading | str:
    """Installed version under any of several package names."""
    for package in packages:
        for found in metadata.distributions(name=package):
            return f"{found.version} ({package})"
    return _unknown("", f"not installed: {', '.join(packages)}")
