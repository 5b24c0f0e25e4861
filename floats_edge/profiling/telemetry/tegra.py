"""What a Jetson tells of itself: sysfs first, which needs no root; tegrastats where a container hides sysfs.

Sources: the kernel's ``Documentation/hwmon/ina3221.rst``; Jetson Linux Developer Guide, "Tegrastats Utility" and
"Platform Power and Performance" (r35, r36, r38). jetson_clocks only sets lowest = highest clock in sysfs, and prints it
back to root alone: so the limits are read, not the script asked.
"""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.telemetry.sensors import (
    Sensor,
    UnreadableError,
    is_there,
    matching,
    read_line,
    read_number,
)

TOTAL_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that feed the whole module (Orin Nano and NX; Thor; the first Nano)."""

_SHARED_RAILS = ("VDD_GPU_SOC", "VDD_GPU", "VDD_CPU_CV", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")
"""Where no rail feeds the whole module (AGX Orin; Thor where its board monitor is hidden), these together do."""

_GPU_CLOCKS = ("*.gpu", "*.ga10b", "*.gv11b", "gpu-gpc-0")
_UNCONNECTED = "NC"
_ZONE_SUFFIX = re.compile(r"-therm(al)?$|_tegra$")  # JetPack 5: CPU-therm, Tboard_tegra; later cpu-thermal
_NO_SENSOR_C = -200  # a unit that is powered down reads -256
_PATIENCE_S = 5


@dataclass(frozen=True)
class Tegrastats:
    """One line of tegrastats.

    Attributes:
        ram_mib: used and total memory, which CPU and GPU share.
        gpu_percent: load of the GPU; None where the line has none (Thor).
        gpu_mhz: clock of the first GPU cluster; None where it is not told (no root on JetPack 5).
        cpu_mhz: clock of each core that is on.
        temperature_c: by zone, lower case.
        power_w: now, by rail.
    """

    ram_mib: tuple[int, int] | None
    gpu_percent: int | None
    gpu_mhz: int | None
    cpu_mhz: tuple[int, ...]
    temperature_c: Mapping[str, float]
    power_w: Mapping[str, float]


def parse_tegrastats(line: str) -> Tegrastats:
    """Read one line as JetPack 4 to 7 print it; what it lacks is None or left out."""
    ram = re.search(r"\bRAM (\d+)/(\d+)MB", line)
    gpu = re.search(r"\bGR3D_FREQ (?:(\d+)%)?(?:@\[?(\d+))?", line)
    cpu = re.search(r"\bCPU \[([^\]]*)\]", line)
    temperatures = re.findall(r"\b(\w+)@(-?[\d.]+)C(?![a-zA-Z])", line)
    # now/average up to JetPack 6; now/average/highest in JetPack 7; bare numbers before JetPack 5
    rails = re.findall(r"\b((?:VDD|VIN|POM|CPU|GPU|SOC|CV|SYS)\w*) (-?\d+)(?:mW)?/-?\d+", line)
    return Tegrastats(
        ram_mib=(int(ram[1]), int(ram[2])) if ram else None,
        gpu_percent=int(gpu[1]) if gpu and gpu[1] else None,
        gpu_mhz=int(gpu[2]) if gpu and gpu[2] else None,
        cpu_mhz=tuple(int(mhz) for mhz in re.findall(r"%@(\d+)", cpu[1])) if cpu else (),
        temperature_c={zone.lower(): float(value) for zone, value in temperatures if float(value) > _NO_SENSOR_C},
        power_w={rail: int(milliwatts) / 1000 for rail, milliwatts in rails},
    )


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this is a Tegra: by the device tree, which containers see too."""
    try:
        compatible = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return False
    return b"nvidia,tegra" in compatible


def compatible_modules(root: Path = Path("/")) -> frozenset[str]:
    """Part numbers of boards and modules in the device tree, for example ``p3767-0005``; none where it is hidden."""
    try:
        compatible = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return frozenset()
    return frozenset(re.findall(r"p\d{4}-\d{4}", compatible.decode("ascii", "replace")))


@contextmanager
def power_sensors(root: Path = Path("/")) -> Iterator[list[Sensor]]:
    """Power of the rails and of the whole module, in W: from sysfs, or from tegrastats where that is hidden or refused.

    Where neither tells, one sensor for the whole module, without a value: it says why.
    """
    with ExitStack() as stack:
        try:
            sensors = rail_sensors(root)
        except UnreadableError as hidden:
            try:
                sensors = stack.enter_context(tegrastats_sensors())
            except UnreadableError as silent:
                sensors = [_silent("power module", "W", f"{hidden}; {silent}")]
        yield sensors


def _silent(name: str, unit: str, reason: str) -> Sensor:
    def read() -> NoReturn:
        raise UnreadableError(reason)

    return Sensor(name, unit, reason, read)


def rail_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Power of every rail that a monitor chip measures (INA3221, INA238), and of the whole module, in W.

    Raises:
        UnreadableError: there is no such chip, or none may be read.
    """
    rails: dict[str, Sensor] = {}
    reasons = []
    for chip in matching(root / "sys/class/hwmon", "hwmon*"):
        try:
            found = dict(_chip_rails(chip))
        except UnreadableError as error:
            reasons.append(str(error))
            continue
        rails |= found
    if not rails:
        raise UnreadableError("; ".join(reasons) or "no INA3221 and no INA238 under /sys/class/hwmon")
    return [*rails.values(), *_total(rails)]


def _chip_rails(chip: Path) -> Iterator[tuple[str, Sensor]]:
    """Channels that have a name and a current: the others are not connected, or shunt voltages and their sum."""
    kind = read_line(chip / "name")
    if not kind.startswith("ina"):
        return
    for named in matching(chip, "in[0-9]_label"):
        channel = named.name.removeprefix("in").removesuffix("_label")
        volts, current = chip / f"in{channel}_input", chip / f"curr{channel}_input"
        if is_there(current) and (label := read_line(named)) != _UNCONNECTED:
            yield label, _rail(label, f"{kind}, {chip.name}/in{channel} × curr{channel}", _product(volts, current))
    label = chip / "label"
    power = chip / "power1_input"
    if is_there(label) and is_there(power):
        name = read_line(label)
        yield name, _rail(name, f"{kind}, {chip.name}/power1_input", lambda: read_number(power) / 1e6)


def _product(volts: Path, current: Path) -> Callable[[], float]:
    return lambda: read_number(volts) * read_number(current) / 1e6


def _rail(label: str, source: str, read: Callable[[], float]) -> Sensor:
    return Sensor(f"power {label}", "W", source, read)


def _total(rails: Mapping[str, Sensor]) -> list[Sensor]:
    whole = [rails[name] for name in TOTAL_RAILS if name in rails][:1]
    parts = whole or [rails[name] for name in _SHARED_RAILS if name in rails]
    if not parts:
        return []
    names = " + ".join(part.name.removeprefix("power ") for part in parts)
    return [Sensor("power module", "W", names, lambda: sum(part.read() for part in parts))]


def thermal_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Temperature of every thermal zone, in °C; a zone whose unit is powered down has none then."""
    found = []
    for zone in matching(root / "sys/class/thermal", "thermal_zone*"):
        try:
            kind = read_line(zone / "type")
        except UnreadableError:
            continue
        name = f"temperature {_ZONE_SUFFIX.sub('', kind).lower()}"
        found.append(Sensor(name, "°C", f"{zone.name}/temp", _celsius(zone / "temp")))
    return found


def _celsius(path: Path) -> Callable[[], float]:
    def read() -> float:
        value = read_number(path) / 1000
        if value < _NO_SENSOR_C:
            raise UnreadableError(f"{path} reads {value:g} °C: the unit is powered down")
        return value

    return read


def throttle_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Steps of throttling in force: thermal alerts by cooling device, and over-current events since boot."""
    found = []
    for device in matching(root / "sys/class/thermal", "cooling_device*"):
        try:
            kind = read_line(device / "type")
        except UnreadableError:
            continue
        if kind.endswith("-throttle-alert"):
            found.append(
                Sensor(f"throttling {kind}", "steps", f"{device.name}/cur_state", _number(device / "cur_state"))
            )
    for events in matching(root / "sys/class/hwmon", "hwmon*/oc*_event_cnt"):
        name = f"over-current {events.name.removesuffix('_event_cnt')}"
        found.append(Sensor(name, "events", f"{events.parent.name}/{events.name}", _number(events)))
    return found


def _number(path: Path) -> Callable[[], float]:
    return lambda: read_number(path)


def gpu_clock_folder(root: Path = Path("/")) -> Path | None:
    """Folder of the GPU's frequency limits, or None."""
    folder = root / "sys/class/devfreq"
    return next((path for pattern in _GPU_CLOCKS for path in matching(folder, pattern)), None)


def clock_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Clock of the GPU and of the memory, in MHz."""
    gpu = gpu_clock_folder(root)
    found = [] if gpu is None else [Sensor("GPU clock", "MHz", f"devfreq {gpu.name}", _million(gpu / "cur_freq"))]
    thor = root / "sys/class/devfreq/bwmgr/cur_freq"
    debug = root / "sys/kernel/debug/bpmp/debug/clk/emc/rate"  # for root alone
    memory = thor if is_there(thor) else debug
    return [*found, Sensor("memory clock", "MHz", str(memory.relative_to(root)), _million(memory))]


def _million(path: Path) -> Callable[[], float]:
    return lambda: read_number(path) / 1e6


def clock_limits(root: Path = Path("/")) -> dict[str, Reading | str]:
    """Lowest and highest clock that GPU and CPU may take, and whether jetson_clocks (or a like hand) fixed them."""
    cpu = root / "sys/devices/system/cpu/cpu0/cpufreq"
    gpu = gpu_clock_folder(root)
    spans: dict[str, tuple[float, float] | str] = {
        "CPU": _span(cpu / "scaling_min_freq", cpu / "scaling_max_freq", 1e3),
        "GPU": "no GPU under /sys/class/devfreq" if gpu is None else _span(gpu / "min_freq", gpu / "max_freq", 1e6),
    }
    limits: dict[str, Reading | str] = {}
    for unit, span in spans.items():
        limits[f"{unit} clock limits"] = (
            Reading(value=None, unit="MHz", source=span) if isinstance(span, str) else f"{span[0]:g} to {span[1]:g} MHz"
        )
    known = [span for span in spans.values() if not isinstance(span, str)]
    limits["clocks"] = (
        Reading(value=None, unit="", source="; ".join(str(span) for span in spans.values()))
        if len(known) < len(spans)
        else "locked"
        if all(low == high for low, high in known)
        else "not locked (sudo jetson_clocks locks them)"
    )
    return limits


def _span(lowest: Path, highest: Path, divisor: float) -> tuple[float, float] | str:
    try:
        return read_number(lowest) / divisor, read_number(highest) / divisor
    except UnreadableError as error:
        return str(error)


def power_mode(root: Path = Path("/")) -> Reading | str:
    """The power mode by nvpmodel: its name if the tool answers, otherwise its number from the tool's state file."""
    tool = shutil.which("nvpmodel")
    if tool is not None:
        try:
            done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            done = None
        mode = parse_power_mode(done.stdout) if done else None
        if mode is not None:
            return mode
    try:
        return read_line(root / "var/lib/nvpmodel/status")
    except UnreadableError as error:
        return Reading(value=None, unit="", source=f"nvpmodel {'does not tell' if tool else 'is not here'}; {error}")


def parse_power_mode(text: str) -> str | None:
    """Name and number of the mode in the answer of ``nvpmodel -q``, or None."""
    name = re.search(r"^NV Power Mode: ?(\S+)", text, re.MULTILINE)
    number = re.search(r"^(\d+)$", text, re.MULTILINE)
    return f"{name[1]} ({number[1]})" if name and number else name and name[1]


def nvmap_used(root: Path = Path("/")) -> Reading:
    """Memory that the GPU took out of the shared memory, in MiB; kernels from JetPack 7 on do not tell."""
    path = root / "proc/meminfo"
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        return Reading(value=None, unit="MiB", source=f"{path}: {error.strerror}")
    found = re.search(r"^NvMapMemUsed: +(\d+) kB", text, re.MULTILINE)
    if found is None:
        return Reading(value=None, unit="MiB", source="no NvMapMemUsed in /proc/meminfo (Thor and PCs have none)")
    return Reading(value=int(found[1]) / 1024, unit="MiB", source="NvMapMemUsed of /proc/meminfo, all processes")


@contextmanager
def tegrastats_sensors(interval_ms: int = 100, patience_s: float = _PATIENCE_S) -> Iterator[list[Sensor]]:
    """Rails and GPU clock from a tegrastats that runs meanwhile: for containers that see the tool and not sysfs.

    Raises:
        UnreadableError: the tool is not here, or tells of no rail within ``patience_s``.
    """
    tool = shutil.which("tegrastats")
    if tool is None:
        raise UnreadableError("tegrastats is not here")
    command = [tool, "--interval", str(interval_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        follower = _Follower(process.stdout)
        try:
            yield follower.sensors(patience_s)
        finally:
            process.kill()
            follower.thread.join()


class _Follower:
    """Keeps up with a tegrastats that runs.

    Attributes:
        newest: its last line; None before the first and after it has ended.
        reason: why that tells nothing, if it does not.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.newest: Tegrastats | None = None
        self.reason = "tegrastats says nothing"
        self._told = threading.Event()
        self.thread = threading.Thread(target=self._follow, args=(lines,), name="tegrastats", daemon=True)
        self.thread.start()

    def sensors(self, patience_s: float) -> list[Sensor]:
        """What the first line that names a rail tells.

        Raises:
            UnreadableError: there was none within ``patience_s``.
        """
        self._told.wait(timeout=patience_s)
        line = self.newest
        if line is None or not line.power_w:
            raise UnreadableError(self.reason)
        rails = {rail: _rail(rail, f"tegrastats, {rail}", self._power(rail)) for rail in line.power_w}
        found = [*rails.values(), *_total(rails)]
        if line.gpu_mhz is not None:
            found.append(Sensor("GPU clock", "MHz", "tegrastats, GR3D_FREQ", self._gpu_clock))
        return found

    def _follow(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.newest = parse_tegrastats(line)
            if self.newest.power_w:
                self.reason = "tegrastats has ended"
                self._told.set()
            else:
                self.reason = f"tegrastats prints lines of an unknown format: {line.strip()[:60]!r}"
        self.newest = None
        self._told.set()

    def _power(self, rail: str) -> Callable[[], float]:
        return lambda: self._known(self.newest.power_w.get(rail) if self.newest else None)

    def _gpu_clock(self) -> float:
        return self._known(self.newest.gpu_mhz if self.newest else None)

    def _known(self, value: float | None) -> float:
        if value is None:
            raise UnreadableError(self.reason)
        return value
