"""Whether figures may stand beside each other: only if they were taken under the same conditions."""

from collections.abc import Mapping, Sequence

from floats_edge.artifacts.records import Comparison, Profile, Reading, Record, Run
from floats_edge.errors import ArtifactError

COMPARED = (
    "CPU",
    "cores",
    "CPU governor",
    "CPU clock limits",
    "GPU clock limits",
    "clocks",
    "GPU",
    "NVIDIA driver",
    "GPU clock, highest",
    "GPU power limit",
    "board",
    "Jetson Linux",
    "power mode",
    "images",
    "floats-edge",
    "NumPy",
    "ONNX Runtime",
    "TensorRT",
    "TensorRT-RTX",
)
"""Conditions that must agree. The versions of Python and of the system are shown and may differ."""

_CLOCK_SPREAD = 0.05
"""How far a clock may be from another."""


def check_comparable(records: Sequence[Record]) -> None:
    """Refuse profiles and comparisons that were taken under different conditions.

    Raises:
        ArtifactError: naming every difference.
    """
    found = differences([record for record in records if isinstance(record, Profile | Comparison)])
    if found:
        raise ArtifactError(
            f"these figures were taken under different conditions and do not compare: {'; '.join(found)}.",
            fix="measure them again under the same conditions, compare bundles with floats-edge profile A B, or add "
            "--across-conditions to see them side by side all the same",
        )


def differences(records: Sequence[Profile | Comparison]) -> list[str]:
    """Each condition that is not the same in all records, with its values."""
    found = []
    for name in COMPARED:
        values = dict.fromkeys(_value(record.conditions, name) for record in records)
        if len(values) > 1:
            found.append(f"{name}: {' against '.join(values)}")
    profiles = [record for record in records if isinstance(record, Profile)]
    comparisons = [record for record in records if isinstance(record, Comparison)]
    for alike in (profiles, comparisons):  # a comparison has no threads, and not all marks that a run has
        for what, of in (("threads", _threads), ("marks", _marks)):
            for backend in dict.fromkeys(part.backend for record in alike for part in _parts(record)):
                values = dict.fromkeys(answer for record in alike if (answer := of(record, backend)) is not None)
                if len(values) > 1:
                    found.append(f"{what} of {backend}: {' against '.join(values)}")
    return found + _gpu_clocks(records)


def _gpu_clocks(records: Sequence[Profile | Comparison]) -> list[str]:
    """Clocks of the GPU that stood still, at different values: whether they were locked cannot be read everywhere."""
    found = []
    for backend in dict.fromkeys(part.backend for record in records for part in _parts(record)):
        parts = [part for record in records for part in _of(record, backend)]
        steady = [part for part in parts if not any(mark.startswith("clocks not locked") for mark in part.marks)]
        sampled = [(part.conditions if isinstance(part, Run) else part.sampled).get("GPU clock") for part in steady]
        means = [clock.mean for clock in sampled if clock is not None and clock.mean]
        if backend != "ort-cpu" and means and max(means) > min(means) * (1 + _CLOCK_SPREAD):
            found.append(f"GPU clock of {backend}: {min(means):.0f} against {max(means):.0f} MHz")
    return found


def _value(conditions: Mapping[str, Reading | str], name: str) -> str:
    value = conditions.get(name, "unknown")
    if isinstance(value, Reading):
        return "unknown" if value.value is None else f"{value.value:g} {value.unit}".strip()
    return value


def _threads(record: Profile | Comparison, backend: str) -> str | None:
    runs = [part for part in _of(record, backend) if isinstance(part, Run)]
    counts = sorted({"any" if run.threads is None else str(run.threads) for run in runs})
    return ", ".join(counts) or None


def _marks(record: Profile | Comparison, backend: str) -> str | None:
    """Kinds of outside trouble; that times were unstable is a result, not a condition."""
    parts = _of(record, backend)
    if not parts:
        return None
    kinds = {mark.partition(":")[0] for part in parts for mark in part.marks}
    return ", ".join(sorted(kinds - {"unstable"})) or "none"


def _of(record: Profile | Comparison, backend: str) -> list[Run | Comparison]:
    return [part for part in _parts(record) if part.backend == backend]


def _parts(record: Profile | Comparison) -> Sequence[Run | Comparison]:
    """What was measured on one backend each."""
    return (record,) if isinstance(record, Comparison) else record.runs
