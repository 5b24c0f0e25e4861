"""Memory of one run, each figure labelled with its source; what is not known says why.

A run has its process to itself (:mod:`floats_edge.profiling.isolation`), so the peak of the process is the run's.
"""

from dataclasses import dataclass
from pathlib import Path

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.telemetry.nvml import gpu_memory_used
from floats_edge.profiling.telemetry.tegra import nvmap_used

_STATUS = Path("/proc/self/status")
_ROLLUP = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True)
class Footprint:
    """Memory in use before anything is loaded."""

    process: Reading
    gpu: Reading
    shared: Reading


def footprint() -> Footprint:
    """Memory in use now, in MiB."""
    return Footprint(process=process_memory("VmRSS"), gpu=gpu_memory_used(), shared=nvmap_used())


def memory_readings(before: Footprint) -> dict[str, Reading]:
    """Peak and increase over ``before``, in MiB; call while the network is still loaded."""
    peak = process_memory("VmHWM")
    return {
        "process before loading": before.process,
        "process peak": peak,
        "process increase": _difference(peak, before.process),
        "process share": process_share(),
        "GPU increase": _difference(gpu_memory_used(), before.gpu),
        "GPU share of Jetson memory, increase": _difference(nvmap_used(), before.shared),
    }


def process_memory(field: str) -> Reading:
    """One line of ``/proc/self/status`` in MiB: ``VmRSS`` (resident now) or ``VmHWM`` (its peak).

    Not ``getrusage``: its ``ru_maxrss`` survives exec, so the child of a large process starts with its parent's peak.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError as error:
        return Reading(value=None, unit="MiB", source=f"{_STATUS}: {error.strerror}")
    for line in lines:
        if line.startswith(f"{field}:"):
            return Reading(value=int(line.split()[1]) / 1024, unit="MiB", source=f"{field} of {_STATUS}")
    return Reading(value=None, unit="MiB", source=f"{_STATUS} has no {field}")


def process_share() -> Reading:
    """Resident memory in MiB, pages that are shared with other processes divided among them (PSS)."""
    try:
        lines = _ROLLUP.read_text(encoding="ascii").splitlines()
    except OSError as error:
        return Reading(value=None, unit="MiB", source=f"{_ROLLUP}: {error.strerror}")
    for line in lines:
        if line.startswith("Pss:"):
            return Reading(value=int(line.split()[1]) / 1024, unit="MiB", source=f"Pss of {_ROLLUP}")
    return Reading(value=None, unit="MiB", source=f"{_ROLLUP} has no Pss")


def _difference(after: Reading, before: Reading) -> Reading:
    if after.value is None:
        return after
    if before.value is None:
        return before
    source = f"{after.source} after the run, less {before.source} before loading"
    return Reading(value=after.value - before.value, unit=after.unit, source=source)
