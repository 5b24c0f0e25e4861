"""``floats-edge doctor``: what is installed, and what this machine can build, run and measure."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from floats_edge.errors import BackendError, add_extra
from floats_edge.runtime.ort_rtx import REMEDY

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from floats_edge.artifacts.records import Reading

EXTRAS = ("", "train", "trt", "rtx", "ort-rtx", "gpu")
"""The core and the extras that a user may want, in the order of the report; ``jetson`` is a part of ``gpu``."""

_STAND_INS = {"onnxruntime": ("onnxruntime-gpu",), "cuda-python": ("cuda-bindings", "pycuda")}
_BACKEND_REMEDIES = {
    "ort-cpu": "pip install --force-reinstall onnxruntime",
    "ort-cuda": "on a machine with a CUDA device: pip uninstall onnxruntime, then "
    "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "ort-rtx": REMEDY,
    "trt": f"on a machine with a CUDA device: {add_extra('trt,gpu')}, or [rtx,gpu] on x86-64",
}
_LINUX = "none: Linux tells it, and only where /proc is mounted"
_NVML = f"on a machine with an NVIDIA driver: {add_extra('gpu')}"
_BARE_METAL = "none: the kernel of this machine does not tell; virtual machines rarely do"
_JETSON = "none: Jetson boards only"
_CONDITIONS = {
    "CPU clock limits": _BARE_METAL,
    "GPU": _NVML,
    "GPU clock, highest": _NVML,
    "GPU power limit": _NVML,
    "GPU processes": _NVML,
    "board": _JETSON,
    "power mode": _JETSON,
}
"""Readings of a profile that not every machine gives, and what brings them."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked for.
        state: what was found, or why it cannot be used.
        remedy: the command that adds it; None where nothing is missing.
    """

    subject: str
    state: str
    remedy: str | None = None


@click.command()
def doctor() -> None:
    """Show what is installed and what this machine can do.

    Lists what it can build, run and measure; for each thing that is missing, why, and the command that adds it. Nothing
    is assumed: what is said to work was imported, opened or read just now.
    """
    from rich.console import Console

    from floats_edge.report.console import print_tables
    from floats_edge.report.tables import Table

    sections: dict[str, Callable[[], list[Finding]]] = {
        "Installed": installed,
        "This machine can build": buildable,
        "This machine can run": runnable,
        "This machine can measure": measurable,
    }
    for title, look in sections.items():
        rows = [("no" if f.remedy else "yes", f.subject, f.state, f.remedy or "") for f in look()]
        print_tables([Table(title, ("", "what", "state", "remedy"), tuple(rows))], Console(highlight=False))
    pointer = gpu_command()
    if pointer is not None:
        click.echo(pointer)


def gpu_command(package: Path = Path(__file__).parents[1]) -> str | None:
    """Which command shows what works on a GPU: in a checkout around ``package``, or where there is a card."""
    tells = "tells what works on a GPU, how fast it is, and what does not work and why."
    command = package.parent / "tools" / "gpu"
    if command.is_file():
        return f"{command} --quick {tells}"
    return f"tools/gpu --quick, in a checkout, {tells}" if _gpu().remedy is None else None


def installed() -> list[Finding]:
    """Every package that floats-edge asks for on this kind of machine."""
    from packaging.requirements import Requirement

    try:
        texts = metadata.requires("floats-edge") or []
    except metadata.PackageNotFoundError as error:
        return [Finding("floats-edge", f"runs from a source tree: {error}", "pip install -e . in that tree")]
    findings: dict[str, Finding] = {}
    for extra in EXTRAS:
        for requirement in map(Requirement, texts):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if applies and requirement.name not in findings:
                findings[requirement.name] = _package(requirement, extra)
    return list(findings.values())


def _package(requirement: "Requirement", extra: str) -> Finding:
    """Whether a package is there in a version that will do, from its metadata: without importing it."""
    subject = f"{requirement.name} ({extra or 'core'})"
    remedy = add_extra(extra) if extra else "pip install . in a clone of floats-edge"
    for name in (requirement.name, *_STAND_INS.get(requirement.name, ())):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if requirement.specifier.contains(version, prereleases=True):
            return Finding(subject, version if name == requirement.name else f"{name} {version}")
        return Finding(subject, f"{version}, but {requirement.specifier} is needed", remedy)
    return Finding(subject, "not installed", remedy)


def buildable() -> list[Finding]:
    """Checkpoints, ONNX graphs and TensorRT engines."""
    return [_training(), _onnx(), _tensorrt()]


def _training() -> Finding:
    from floats_edge.cli.devices import torch_device

    try:
        device = torch_device("auto")
    except BackendError as error:
        return Finding("checkpoints", error.what, error.fix)
    return Finding("checkpoints", f"PyTorch {metadata.version('torch')} on {device}")


def _onnx() -> Finding:
    versions = []
    for name in ("torch", "onnx", "onnxscript"):
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken installation may raise anything; it is reported
            return Finding("ONNX", f"{name} cannot be imported: {error}", add_extra("train"))
        versions.append(f"{name} {metadata.version(name)}")
    return Finding("ONNX", ", ".join(versions))


def _tensorrt() -> Finding:
    from floats_edge.deploy.tensorrt_builder import default_gpus
    from floats_edge.runtime.cuda import open_cuda
    from floats_edge.runtime.tensorrt_library import preferred_tensorrt

    try:
        flavour, trt = preferred_tensorrt()
        if flavour == "tensorrt_rtx":
            targets = ", ".join(default_gpus(trt))
        else:
            with open_cuda() as cuda:
                targets = cuda.target
    except BackendError as error:
        return Finding("TensorRT engines", error.what, error.fix)
    return Finding("TensorRT engines", f"{flavour} {trt.__version__}, for {targets}")


def runnable() -> list[Finding]:
    """The GPU, and every backend."""
    from floats_edge.runtime.backends import BACKENDS, unavailable_reason

    findings = [_gpu()]
    for backend in BACKENDS:
        reason = unavailable_reason(backend)
        findings.append(Finding(backend, reason or "ready", _BACKEND_REMEDIES[backend] if reason else None))
    return findings


def _gpu() -> Finding:
    from floats_edge.runtime.cuda import open_cuda

    try:
        with open_cuda(graphs=True) as cuda:
            device = f"{cuda.name}, {cuda.target}"
            return Finding("CUDA device", device if cuda.has_graphs else f"{device}; no CUDA graphs with pycuda alone")
    except BackendError as error:
        return Finding("CUDA device", error.what, error.fix)


def measurable() -> list[Finding]:
    """What a profile would hold from this machine."""
    from floats_edge.profiling.conditions import read_conditions
    from floats_edge.profiling.memory import process_memory

    conditions = read_conditions()
    readings = {"latency": "time.perf_counter", "memory of the process": process_memory("VmHWM")}
    readings |= {name: conditions[name] for name in _CONDITIONS if name in conditions}
    return [_measurement(name, reading) for name, reading in readings.items()]


def _measurement(name: str, reading: "Reading | str") -> Finding:
    if isinstance(reading, str):
        return Finding(name, reading)
    return Finding(name, reading.source, _CONDITIONS.get(name, _LINUX) if reading.value is None else None)
