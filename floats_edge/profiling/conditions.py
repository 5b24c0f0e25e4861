"""What a measurement is taken under: machine, power mode, versions, and sensors of what changes meanwhile."""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

import psutil

from floats_edge import __version__
from floats_edge.artifacts.records import Reading
from floats_edge.profiling.bench import IMAGE_SEED
from floats_edge.profiling.telemetry import tegra
from floats_edge.profiling.telemetry.nvml import clock_lock, gpu_sensors, gpu_state
from floats_edge.profiling.telemetry.sensors import Sensor, UnreadableError, is_there, read_line, read_number

Conditions = dict[str, Reading | str]

BUSY = "cores busy"
"""Name of the sensor of how many cores work, for whomever."""

_SHORTEST_S = 0.05
"""For a share of time: /proc/stat counts hundredths of a second."""
_CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "NumPy": ("numpy",),
    "ONNX Runtime": ("onnxruntime", "onnxruntime-gpu"),
    "TensorRT": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "TensorRT-RTX": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    "CUDA for Python": ("cuda-bindings", "cuda-python"),
}


def read_conditions(root: Path = Path("/")) -> Conditions:
    """What stays as it is during the runs, by name; ``root`` is where ``/proc``, ``/sys`` and ``/etc`` stand."""
    return {
        "CPU": _cpuinfo(root, "model name"),
        "cores": _cores(),
        "CPU governor": _file(root, f"{_CPUFREQ}/scaling_governor"),
        **tegra.clock_limits(root),
        **({} if tegra.gpu_clock_folder(root) else clock_lock()),
        "memory": Reading(
            value=psutil.virtual_memory().total / 2**20, unit="MiB", source="psutil.virtual_memory, physical"
        ),
        **gpu_state(),
        "board": _file(root, "proc/device-tree/model"),
        "Jetson Linux": _file(root, "etc/nv_tegra_release"),
        "power mode": tegra.power_mode(root),
        "float32": "ieee on every backend: TF32 is switched off",
        "images": f"uniform in [0, 1), seed {IMAGE_SEED}",
        "floats-edge": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        **{name: _version(packages) for name, packages in _PACKAGES.items()},
    }


@contextmanager
def open_sensors(root: Path = Path("/")) -> Iterator[list[Sensor]]:
    """Sensors of what changes during the runs; a Jetson's from sysfs, or from tegrastats where that is hidden."""
    with ExitStack() as stack:
        sensors = [_busy_sensor(), _load_sensor(), _cpu_clock_sensor(root)]
        sensors += stack.enter_context(gpu_sensors())
        if tegra.is_jetson(root):
            sensors += stack.enter_context(tegra.power_sensors(root))
            sensors += [*tegra.clock_sensors(root), *tegra.throttle_sensors(root)]
        yield [*sensors, *tegra.thermal_sensors(root)]


def _unknown(unit: str, reason: str) -> Reading:
    return Reading(value=None, unit=unit, source=reason)


def _file(root: Path, name: str) -> Reading | str:
    """First line of a file of the system."""
    try:
        return read_line(root / name).strip("# ")
    except UnreadableError as error:
        return _unknown("", str(error))


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


def _busy_sensor() -> Sensor:
    """Cores that work, since the last reading: whoever they work for, and what a hypervisor takes."""
    cores, last = os.cpu_count() or 1, [psutil.cpu_times()]

    def read() -> float:
        before, now = last[0], psutil.cpu_times()
        total = sum(now) - sum(before)
        if total < _SHORTEST_S * cores:
            raise UnreadableError("/proc/stat: too little time has passed since the last reading")
        last[0] = now
        idle = now.idle - before.idle + getattr(now, "iowait", 0) - getattr(before, "iowait", 0)
        return round(max(0.0, 1 - idle / total) * cores, 2)

    return Sensor(BUSY, "cores", f"/proc/stat, all processes, of {cores} cores", read)


def _load_sensor() -> Sensor:
    return Sensor("load average", "processes", "os.getloadavg, last minute", lambda: os.getloadavg()[0])


def _cpu_clock_sensor(root: Path) -> Sensor:
    """The clock of the first core, in MHz: by cpufreq, else what the kernel states, which under a VM is nominal."""
    path = root / f"{_CPUFREQ}/scaling_cur_freq"
    if is_there(path):
        return Sensor("CPU clock", "MHz", "cpufreq scaling_cur_freq, first core", lambda: read_number(path) / 1000)

    def stated() -> float:
        mhz = _cpuinfo(root, "cpu MHz")
        if isinstance(mhz, Reading):
            raise UnreadableError(f"no {path}; {mhz.source}")
        return float(mhz)

    return Sensor("CPU clock", "MHz", "/proc/cpuinfo, first core; nominal in a VM", stated)


def _version(packages: tuple[str, ...]) -> Reading | str:
    """Installed version under any of several package names."""
    for package in packages:
        for found in metadata.distributions(name=package):
            return f"{found.version} ({package})"
    return _unknown("", f"not installed: {', '.join(packages)}")
