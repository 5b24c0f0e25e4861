"""What a Jetson tells of itself: sysfs first, which needs no root; tegrastats where a container hides sysfs.

Sources: the kernel's ``Documentation/hwmon/ina3221.rst``; Jetson Linux Developer Guide, "Tegrastats Utility" and
"Platform Power and Performance" (r35, r36, r38). jetson_clocks only sets lowest = highest clock in sysfs, and prints it
back to root alone: so the limits are read, not the script asked.
"""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.telemetry.sensors import Sensor, UnreadableError, read_line, read_number

TOTAL_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that feed the whole module (Orin Nano and NX; Thor; the first Nano)."""

_SHARED_RAILS = ("VDD_GPU_SOC", "VDD_GPU", "VDD_CPU_CV", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")
"""Where no rail feeds the whole module (AGX Orin; Thor where its board monitor is hidden), these together do."""

_GPU_CLOCKS = ("*.gpu", "*.ga10b", "*.gv11b", "gpu-gpc-0")
_NO_SENSOR_C = -200  # tegrastats prints -256 for a unit that is powered down


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


def rail_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Power of every rail that a monitor chip measures (INA3221, INA238), and of the whole module, in W."""
    rails = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        try:
            kind = read_line(chip / "name")
        except UnreadableError:
            continue
        if kind.startswith("ina"):
            rails |= dict(_chip_rails(chip, kind))
    return [*rails.values(), *_total(rails)]


def _chip_rails(chip: Path, kind: str) -> Iterator[tuple[str, Sensor]]:
    """Channels that have a name and a current: the others are shunt voltages and their sum."""
    for named in sorted(chip.glob("in[0-9]_label")):
        channel = named.name.removeprefix("in").removesuffix("_label")
        volts, current = chip / f"in{channel}_input", chip / f"curr{channel}_input"
        if current.exists():
            label = read_line(named)
            yield label, _rail(label, f"{kind}, {chip.name}/in{channel} × curr{channel}", _product(volts, current))
    label = chip / "label"
    power = chip / "power1_input"
    if label.exists() and power.exists():
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
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        try:
            kind = read_line(zone / "type")
        except UnreadableError:
            continue
        name = f"temperature {kind.removesuffix('-thermal')}"
        found.append(Sensor(name, "°C", f"{zone.name}/temp", _thousandth(zone / "temp")))
    return found


def _thousandth(path: Path) -> Callable[[], float]:
    return lambda: read_number(path) / 1000


def throttle_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Steps of throttling in force: thermal alerts by cooling device, and over-current events since boot."""
    found = []
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        try:
            kind = read_line(device / "type")
        except UnreadableError:
            continue
        if kind.endswith("-throttle-alert"):
            found.append(
                Sensor(f"throttling {kind}", "steps", f"{device.name}/cur_state", _number(device / "cur_state"))
            )
    for events in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")):
        name = f"over-current {events.name.removesuffix('_event_cnt')}"
        found.append(Sensor(name, "events", f"{events.parent.name}/{events.name}", _number(events)))
    return found


def _number(path: Path) -> Callable[[], float]:
    return lambda: read_number(path)


def gpu_clock_folder(root: Path = Path("/")) -> Path | None:
    """Folder of the GPU's frequency limits, or None."""
    folder = root / "sys/class/devfreq"
    return next((path for pattern in _GPU_CLOCKS for path in sorted(folder.glob(pattern))), None)


def clock_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Clock of the GPU and of the memory, in MHz."""
    gpu = gpu_clock_folder(root)
    found = [] if gpu is None else [Sensor("GPU clock", "MHz", f"devfreq {gpu.name}", _million(gpu / "cur_freq"))]
    thor = root / "sys/class/devfreq/bwmgr/cur_freq"
    debug = root / "sys/kernel/debug/bpmp/debug/clk/emc/rate"  # for root alone
    memory = thor if thor.exists() else debug
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
def tegrastats_sensors(interval_ms: int = 100) -> Iterator[list[Sensor]]:
    """Rails and GPU clock from a tegrastats that runs meanwhile: for containers that see the tool and not sysfs."""
    tool = shutil.which("tegrastats")
    if tool is None:
        yield []
        return
    command = [tool, "--interval", str(interval_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
    lines: list[Tegrastats] = []
    first = threading.Event()

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines[:] = [parse_tegrastats(line)]
            first.set()

    reader = threading.Thread(target=follow, name="tegrastats", daemon=True)
    reader.start()
    try:
        first.wait(timeout=5)
        yield _line_sensors(lines)
    finally:
        process.kill()
        process.wait()
        reader.join()


def _line_sensors(lines: list[Tegrastats]) -> list[Sensor]:
    if not lines:
        return []

    def power(rail: str) -> Callable[[], float]:
        return lambda: lines[0].power_w[rail]

    rails = {rail: _rail(rail, f"tegrastats, {rail}", power(rail)) for rail in lines[0].power_w}
    found = [*rails.values(), *_total(rails)]
    if lines[0].gpu_mhz is not None:
        found.append(Sensor("GPU clock", "MHz", "tegrastats, GR3D_FREQ", lambda: float(lines[0].gpu_mhz or 0)))
    return found
