"""What NVIDIA's management library tells of the first GPU; read outside timed paths."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from floats_edge.artifacts.records import Reading

_INDEX = 0  # CUDA_VISIBLE_DEVICES does not apply to NVML


class NoAnswer(Exception):  # noqa: N818 - an expected state of most machines
    """NVML does not tell this here; the message says why."""


@contextmanager
def first_gpu() -> Iterator[tuple[Any, Any]]:
    """The NVML module and the handle of the first GPU.

    Raises:
        NoAnswer: the module is not installed, there is no driver or no GPU, or a question asked inside is not answered.
    """
    try:
        import pynvml
    except ImportError:
        raise NoAnswer("nvidia-ml-py is not installed (pip install 'floats-edge[gpu]')") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoAnswer(f"NVML: {error}") from None
    try:
        yield pynvml, pynvml.nvmlDeviceGetHandleByIndex(_INDEX)
    except pynvml.NVMLError as error:
        raise NoAnswer(f"NVML: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def gpu_memory_used() -> Reading:
    """Memory in use on the first GPU in MiB, by all processes."""
    try:
        with first_gpu() as (nvml, gpu):
            used = nvml.nvmlDeviceGetMemoryInfo(gpu).used
    except NoAnswer as reason:
        return Reading(value=None, unit="MiB", source=str(reason))
    return Reading(value=used / 2**20, unit="MiB", source="nvmlDeviceGetMemoryInfo of GPU 0, all processes")


def gpu_state() -> dict[str, Reading | str]:
    """Name, driver, clocks, power limit and temperature of the first GPU; each unknown with its reason."""
    try:
        with first_gpu() as (nvml, gpu):
            names: dict[str, Reading | str] = {
                "GPU": str(nvml.nvmlDeviceGetName(gpu)),
                "NVIDIA driver": str(nvml.nvmlSystemGetDriverVersion()),
            }
    except NoAnswer as reason:
        return {"GPU": Reading(value=None, unit="", source=str(reason))}
    return names | {
        "GPU clock": _reading("MHz", 1, "nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
        "GPU clock, highest": _reading("MHz", 1, "nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_SM"),
        "GPU memory clock": _reading("MHz", 1, "nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM"),
        "GPU power limit": _reading("W", 1000, "nvmlDeviceGetEnforcedPowerLimit"),
        "GPU temperature": _reading("°C", 1, "nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),
    }


def _reading(unit: str, divisor: float, query: str, *constants: str) -> Reading:
    """The answer to one question to NVML; a question asked in vain does not spoil the others."""
    try:
        with first_gpu() as (nvml, gpu):
            answer = getattr(nvml, query)(gpu, *(getattr(nvml, name) for name in constants))
    except NoAnswer as reason:
        return Reading(value=None, unit=unit, source=str(reason))
    return Reading(value=answer / divisor, unit=unit, source=query)
