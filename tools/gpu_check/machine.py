"""The machine and its card: what is installed, what can be built and run, and the conditions of all figures."""

from typing import TYPE_CHECKING

from gpu_check.told import CannotRunError, Told, attempt, need_cuda

if TYPE_CHECKING:
    from floats_edge.artifacts.records import Reading
    from floats_edge.cli.doctor import Finding


def card() -> str | None:
    """The GPU, by PyTorch or else by CUDA's own interface."""
    try:
        return need_cuda()
    except (CannotRunError, ImportError):
        pass
    try:
        from floats_edge.runtime.cuda import open_cuda

        with open_cuda() as cuda:
            return f"{cuda.name}, {cuda.target}"
    except Exception:  # noqa: BLE001 - why there is none is what doctor finds
        return None


def machine(told: Told, quick: bool) -> None:
    del quick
    found = card()
    if found is not None:
        told.line("card", found)
    from floats_edge.cli import doctor
    from floats_edge.profiling.conditions import read_conditions

    for look in (doctor.installed, doctor.buildable, doctor.runnable):
        for finding in attempt(told, look.__name__, None, look) or ():
            told.find(finding.subject, "missing" if finding.remedy else "there", _doctors(finding))
    for name, condition in read_conditions().items():
        _condition(told, name, condition)


def _doctors(finding: "Finding") -> str:
    return f"{finding.state.rstrip('.')}. Remedy: {finding.remedy}" if finding.remedy else finding.state


def _condition(told: Told, name: str, condition: "Reading | str") -> None:
    path = "sensors" if name.startswith(("GPU", "NVIDIA", "board", "power mode")) else None
    if isinstance(condition, str):
        told.find(name, "measured", condition, path=path)
    elif condition.value is None:
        told.find(name, "unknown", condition.source)
    else:
        told.find(name, "measured", condition.source, condition.value, condition.unit, path=path)
