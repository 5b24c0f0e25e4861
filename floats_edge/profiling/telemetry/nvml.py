"""What NVIDIA's management library tells of the GPU that CUDA uses first; read outside timed paths.

CUDA_VISIBLE_DEVICES does not apply to NVML, and NVML counts GPUs by PCI address, CUDA by speed unless CUDA_DEVICE_ORDER
says otherwise: where several GPUs differ, their numbers mean nothing to each other.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from floats_edge.artifacts.records import Reading
from floats_edge.errors import add_extra
from floats_edge.profiling.telemetry.sensors import Sensor, UnreadableError

THROTTLING = {
    "SwPowerCap": "power limit",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "temperature, by software",
    "HwThermalSlowdown": "temperature, by hardware",
    "HwPowerBrakeSlowdown": "power brake",
}
"""Why the driver lowers clocks under load, by NVML's name. Idling and clocks set by hand are no throttling."""


COUNTED_POWER = "power GPU, counted"
_FRESH_S = 1.0
"""How long ago the counter of energy may have been read for its growth to tell of the present."""

_LOCK_UNKNOWN = (
    "NVML does not tell whether clocks are locked (sudo nvidia-smi --lock-gpu-clocks=MHZ locks them): a run over which "
    "the GPU's clock moved is marked"
)


@contextmanager
def first_gpu() -> Iterator[tuple[Any, Any]]:
    """The NVML module and the handle of the first GPU.

    Raises:
        UnreadableError: the module is not installed, there is no driver or no GPU, or a question asked inside is not
            answered.
    """
    try:
        import pynvml
    except ImportError:
        raise UnreadableError(f"nvidia-ml-py is not installed ({add_extra('gpu')})") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UnreadableError(f"NVML: {error}") from None
    try:
        yield pynvml, _first_visible(pynvml)
    except pynvml.NVMLError as error:
        raise UnreadableError(f"NVML: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def _first_visible(nvml: Any) -> Any:
    """The handle of the GPU that is CUDA's number 0."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if not handles:
        raise UnreadableError("NVML: there is no GPU")
    by_address = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if len(handles) > 1 and not by_address and len({nvml.nvmlDeviceGetName(handle) for handle in handles}) > 1:
        raise UnreadableError(
            f"NVML: which of {len(handles)} unlike GPUs CUDA takes is not known; set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    if not first:
        return handles[0]
    if not first.isdigit() or int(first) >= len(handles):
        raise UnreadableError(f"CUDA_VISIBLE_DEVICES={first} is none of {len(handles)} GPUs")
    return handles[int(first)]


def gpu_memory_used() -> Reading:
    """Memory in use on the first GPU in MiB, by all processes."""
    try:
        with first_gpu() as (nvml, gpu):
            used = nvml.nvmlDeviceGetMemoryInfo(gpu).used
    except UnreadableError as reason:
        return Reading(value=None, unit="MiB", source=str(reason))
    return Reading(value=used / 2**20, unit="MiB", source="nvmlDeviceGetMemoryInfo, all processes")


def gpu_memory_peak() -> Reading:
    """Bandwidth of the first GPU's memory in GB/s: bus width times the highest clock, two transfers a cycle."""
    return _peak("GB/s", 2 / 8, "nvmlDeviceGetMemoryBusWidth", "NVML_CLOCK_MEM", "bits", "two transfers a cycle")


def gpu_arithmetic_peak() -> Reading:
    """float32 rate of the first GPU's CUDA cores in GFLOP/s: a fused multiply-add each at the highest clock."""
    how = "a multiply-add a cycle; no tensor cores"
    return _peak("GFLOP/s", 2, "nvmlDeviceGetNumGpuCores", "NVML_CLOCK_SM", "CUDA cores", how)


def _peak(unit: str, a_cycle: float, query: str, clock: str, counted: str, how: str) -> Reading:
    """What the first GPU does at the highest of its clocks: a count asked of NVML, times what each does a cycle."""
    try:
        with first_gpu() as (nvml, gpu):
            count = getattr(nvml, query)(gpu)
            mhz = nvml.nvmlDeviceGetMaxClockInfo(gpu, getattr(nvml, clock))
    except UnreadableError as reason:
        return Reading(value=None, unit=unit, source=str(reason))
    source = f"NVML: {count} {counted} at {mhz} MHz, the highest clock, {how}"
    return Reading(value=a_cycle * count * mhz / 1000, unit=unit, source=source)


def gpu_state() -> dict[str, Reading | str]:
    """Name, driver, highest clock, power limit and other processes of the first GPU; each unknown with its reason."""
    try:
        with first_gpu() as (nvml, gpu):
            names: dict[str, Reading | str] = {
                "GPU": str(nvml.nvmlDeviceGetName(gpu)),
                "NVIDIA driver": str(nvml.nvmlSystemGetDriverVersion()),
                "GPUs": Reading(value=nvml.nvmlDeviceGetCount(), unit="in the machine", source="nvmlDeviceGetCount"),
            }
    except UnreadableError as reason:
        return {"GPU": Reading(value=None, unit="", source=str(reason))}
    return names | {
        "GPU clock, highest": _reading("MHz", 1, "nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_SM"),
        "GPU power limit": _reading("W", 1000, "nvmlDeviceGetEnforcedPowerLimit"),
        "GPU processes": _processes(),
    }


def clock_lock() -> dict[str, Reading | str]:
    """Whether the clocks of the first GPU are locked, which NVML does not tell; nothing where it has no GPU."""
    try:
        with first_gpu():
            return {"clocks": Reading(value=None, unit="", source=_LOCK_UNKNOWN)}
    except UnreadableError:
        return {}


@contextmanager
def gpu_sensors() -> Iterator[list[Sensor]]:
    """Power, clocks, temperature and reasons for throttling of the first GPU; none where NVML does not answer."""
    with ExitStack() as library:
        try:
            library.enter_context(first_gpu())  # keeps it loaded, so that a reading takes microseconds
        except UnreadableError:
            yield []
            return
        yield _all_sensors()


def _all_sensors() -> list[Sensor]:
    return [
        _counted_power(),
        _sensor("power GPU", "W", 1000, "nvmlDeviceGetPowerUsage"),
        _sensor("GPU clock", "MHz", 1, "nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
        _sensor("GPU memory clock", "MHz", 1, "nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM"),
        _sensor("temperature GPU", "°C", 1, "nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),
        *(
            Sensor(f"throttling {what}", "steps", f"nvmlDeviceGetCurrentClocksEventReasons, {name}", _throttled(name))
            for name, what in THROTTLING.items()
        ),
    ]


def _counted_power() -> Sensor:
    """Power since the last reading, by the counter of energy (Volta and newer): it misses nothing in between."""
    query = "nvmlDeviceGetTotalEnergyConsumption"
    energy = _sensor("", "J", 1000, query)
    last: list[tuple[float, float]] = []

    def read() -> float:
        joules, now = energy.read(), time.monotonic()
        before, last[:] = [*last], [(joules, now)]
        if not before or now - before[0][1] > _FRESH_S:
            raise UnreadableError(f"{query}: it takes two readings to tell")
        return (joules - before[0][0]) / (now - before[0][1])

    return Sensor(COUNTED_POWER, "W", f"{query}, growth over time", read)


def _throttled(name: str) -> Callable[[], float]:
    """Whether one reason for throttling is in force: 1 or 0. Older libraries have it under its older name."""

    def read() -> float:
        with first_gpu() as (nvml, gpu):
            query = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
            query = query or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
            bit = getattr(nvml, f"nvmlClocksEventReason{name}", None)
            bit = bit if bit is not None else getattr(nvml, f"nvmlClocksThrottleReason{name}")
            return float(bool(query(gpu) & bit))

    return read


def _processes() -> Reading:
    """Processes that compute on the GPU, this one left out; a container sees none but its own."""
    try:
        with first_gpu() as (nvml, gpu):
            others = [p for p in nvml.nvmlDeviceGetComputeRunningProcesses(gpu) if p.pid != os.getpid()]
    except UnreadableError as reason:
        return Reading(value=None, unit="others", source=str(reason))
    source = "nvmlDeviceGetComputeRunningProcesses, before the runs"
    return Reading(value=len(others), unit="others", source=source)


def _reading(unit: str, divisor: float, query: str, *constants: str) -> Reading:
    """The answer to one question to NVML; a question asked in vain does not spoil the others."""
    try:
        value = _sensor("", unit, divisor, query, *constants).read()
    except UnreadableError as reason:
        return Reading(value=None, unit=unit, source=str(reason))
    return Reading(value=value, unit=unit, source=query)


def _sensor(name: str, unit: str, divisor: float, query: str, *constants: str) -> Sensor:
    def read() -> float:
        with first_gpu() as (nvml, gpu):
            return getattr(nvml, query)(gpu, *(getattr(nvml, constant) for constant in constants)) / divisor

    return Sensor(name, unit, query, read)
