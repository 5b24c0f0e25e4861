"""Whether figures may stand beside each other: only if they were taken under the same conditions."""

from collections.abc import Mapping, Sequence

from floats_edge.artifacts.records import Profile, Reading, Record, Run
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


def check_comparable(records: Sequence[Record]) -> None:
    """Refuse profiles that were taken under different conditions.

    Raises:
        ArtifactError: naming every difference.
    """
    found = differences([record for record in records if isinstance(record, Profile)])
    if found:
        raise ArtifactError(
            f"these profiles were taken under different conditions and do not compare: {'; '.join(found)}.",
            fix="profile them again under the same conditions, compare bundles with floats-edge profile A B, or add "
            "--across-conditions to see them side by side all the same",
        )


def differences(profiles: Sequence[Profile]) -> list[str]:
    """Each condition that is not the same in all profiles, with its values."""
    found = []
    for name in COMPARED:
        values = dict.fromkeys(_value(profile.conditions, name) for profile in profiles)
        if len(values) > 1:
            found.append(f"{name}: {' against '.join(values)}")
    for what, of in (("threads", _threads), ("marks", _marks)):
        for backend in dict.fromkeys(run.backend for profile in profiles for run in profile.runs):
            values = dict.fromkeys(answer for p in profiles if (answer := of(p, backend)) is not None)
            if len(values) > 1:
                found.append(f"{what} of {backend}: {' against '.join(values)}")
    return found


def _value(conditions: Mapping[str, Reading | str], name: str) -> str:
    value = conditions.get(name, "unknown")
    if isinstance(value, Reading):
        return "unknown" if value.value is None else f"{value.value:g} {value.unit}".strip()
    return value


def _threads(profile: Profile, backend: str) -> str | None:
    counts = sorted({"any" if run.threads is None else str(run.threads) for run in _of(profile, backend)})
    return ", ".join(counts) or None


def _marks(profile: Profile, backend: str) -> str | None:
    """Kinds of outside trouble; that times were unstable is a result, not a condition."""
    if not _of(profile, backend):
        return None
    kinds = {mark.partition(":")[0] for run in _of(profile, backend) for mark in run.marks}
    return ", ".join(sorted(kinds - {"unstable"})) or "none"


def _of(profile: Profile, backend: str) -> list[Run]:
    return [run for run in profile.runs if run.backend == backend]
