"""Energy of one inference from power while many ran."""

from collections.abc import Mapping

from floats_edge.artifacts.records import Reading, Sampled
from floats_edge.profiling.telemetry.nvml import COUNTED_POWER

POWER = ("power module", COUNTED_POWER, "power GPU")
"""Sensors whose power is what a run costs, the first that there is: the whole module of a Jetson, or a card, by the
growth of its counter of energy or else by its power, which lags behind."""

_LAG = {"power GPU": "; on Ampere and newer, GA100 apart, power is NVML's average over the second before each sample"}

_FEWEST = 5


def run_energy(
    conditions: Mapping[str, Sampled], idle_w: Mapping[str, float | None], seconds: float, inferences: int
) -> dict[str, Reading]:
    """Power during a run, power idle, and energy per inference with idle taken off.

    Args:
        conditions: of the run; power is the mean of the samples taken during the timed inferences.
        idle_w: mean power by sensor, before anything ran.
        seconds: that the timed inferences took.
        inferences: how many there were.
    """
    there = [sensor for sensor in POWER if sensor in conditions]
    name = next((sensor for sensor in there if _was_read(conditions[sensor])), None)
    if name is None:
        reasons = "; ".join(conditions[sensor].source for sensor in there)
        reason = reasons or "no power sensor: neither NVML nor an INA3221 nor tegrastats answers here"
        return {"energy per inference": Reading(value=None, unit="mJ", source=reason)}
    power, idle = conditions[name], idle_w.get(name)
    passed_over = "".join(f"; no {other}: {conditions[other].source}" for other in there[: there.index(name)])
    readings = {
        "power during": Reading(value=power.mean, unit="W", source=f"{power.source}, mean of {power.n} samples"),
        "power idle": Reading(value=idle, unit="W", source=f"{power.source}, mean before the first run"),
    }
    energy = _above_idle(name, power, idle, seconds / inferences)
    source = f"{energy.source}{_LAG.get(name, '')}{passed_over}"
    return readings | {"energy per inference": energy.model_copy(update={"source": source})}


def _was_read(power: Sampled) -> bool:
    return any(watts is not None for watts in (power.before, power.mean, power.after))


def _above_idle(name: str, power: Sampled, idle: float | None, seconds: float) -> Reading:
    if power.mean is None or power.n < _FEWEST:
        source = f"{power.source}: only {power.n} samples during the run; measure longer (--duration)"
        return Reading(value=None, unit="mJ", source=source)
    if idle is None:
        return Reading(value=None, unit="mJ", source=f"{power.source}: idle power is not known")
    joules = (power.mean - idle) * seconds
    if joules <= 0:
        source = f"{name} was not above idle: {power.mean:.3g} W during, {idle:.3g} W idle"
        return Reading(value=None, unit="mJ", source=source)
    return Reading(value=1000 * joules, unit="mJ", source=f"({name} during - idle) × mean time, n = {power.n} samples")
