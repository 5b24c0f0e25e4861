"""What makes the figures of a run or of a comparison doubtful, in words."""

from collections.abc import Mapping

from floats_edge.artifacts.records import Reading, Sampled
from floats_edge.profiling.bench import Measured
from floats_edge.profiling.conditions import BUSY

UNSTABLE = 0.10
"""Coefficient of variation from which a run counts as unstable."""

_CLOCK_SPREAD = 0.02
_DRIFT = 0.05
_FOREIGN_CORES = 0.25
_CLOCKS = ("GPU clock", "CPU clock")


def run_marks(
    measured: Measured, sampled: Mapping[str, Sampled], conditions: Mapping[str, Reading | str]
) -> tuple[str, ...]:
    """Marks of a run: throttled, clocks not locked, a busy machine, unstable with its likely cause."""
    throttled = _throttled(sampled)
    moved = _moved_clocks(sampled)
    foreign = _foreign_cores(measured, sampled)
    marks = _machine_marks(throttled, moved, conditions)
    if foreign is not None and foreign > _FOREIGN_CORES:
        marks.append(f"busy machine: other processes kept {foreign:.1f} cores busy")
    marks += _shared(conditions)
    variation = measured.run.latency_ms.variation
    if variation > UNSTABLE:
        cause = _cause(measured, throttled, moved, foreign)
        marks.append(f"unstable: the times vary by {variation:.0%} (std / mean); {cause}")
    return tuple(marks)


def comparison_marks(sampled: Mapping[str, Sampled], conditions: Mapping[str, Reading | str]) -> tuple[str, ...]:
    """Marks of a comparison: of a run's, those that do not depend on what a single process did."""
    return (*_machine_marks(_throttled(sampled), _moved_clocks(sampled), conditions), *_shared(conditions))


def _machine_marks(throttled: list[str], moved: list[str], conditions: Mapping[str, Reading | str]) -> list[str]:
    marks = [f"throttled: {what}" for what in throttled]
    return marks + [f"clocks not locked: {what}" for what in moved or _unlocked(conditions)]


def _shared(conditions: Mapping[str, Reading | str]) -> list[str]:
    others = conditions.get("GPU processes")
    if isinstance(others, Reading) and others.value:
        return [f"shared GPU: {others.value:.0f} other processes compute on it"]
    return []


def _throttled(sampled: Mapping[str, Sampled]) -> list[str]:
    """Throttling in force during the run, and over-current events that were counted over it."""
    found = []
    for name, values in sampled.items():
        if name.startswith("throttling ") and values.maximum:
            found.append(name.removeprefix("throttling "))
        grown = None if values.before is None or values.after is None else values.after - values.before
        if name.startswith("over-current ") and grown:
            found.append(f"{name}, {grown:.0f} events")
    return found


def _moved_clocks(sampled: Mapping[str, Sampled]) -> list[str]:
    found = []
    for name in _CLOCKS:
        clock = sampled.get(name)
        if clock is None or clock.minimum is None or clock.maximum is None:
            continue
        if clock.maximum > clock.minimum * (1 + _CLOCK_SPREAD):
            found.append(f"{name} {clock.minimum:.0f} to {clock.maximum:.0f} MHz during the run")
    return found


def _unlocked(conditions: Mapping[str, Reading | str]) -> list[str]:
    clocks = conditions.get("clocks")
    return ["they may move"] if isinstance(clocks, str) and clocks.startswith("not locked") else []


def _foreign_cores(measured: Measured, sampled: Mapping[str, Sampled]) -> float | None:
    """Cores that worked for other processes during the run, on average."""
    busy = sampled.get(BUSY)
    if busy is None or busy.mean is None:
        return None
    own = measured.cpu_s / ((measured.end_ns - measured.start_ns) / 1e9)
    return max(0.0, busy.mean - own)


def _cause(measured: Measured, throttled: list[str], moved: list[str], foreign: float | None) -> str:
    """The likeliest cause of unstable times, of those that can be told."""
    if throttled:
        return "likely because of throttling"
    if moved:
        return "likely because the clocks moved"
    if foreign is not None and foreign > _FOREIGN_CORES:
        return f"likely because of other processes, which took the processor {measured.preemptions:,} times"
    if abs(measured.drift - 1) > _DRIFT:
        return f"likely because of a drift: the last third took {measured.drift:.2f} × the first; warm up longer"
    return "of a cause that cannot be told here"
