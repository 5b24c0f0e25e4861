"""What an engine is to be, and what a build gives: the values that pass between export, parent and child process."""

import re
from dataclasses import dataclass
from pathlib import Path

from floats_edge.artifacts.manifest import Compatibility, Flavour
from floats_edge.errors import BackendError

_TARGET = re.compile(r"sm_\d{2,3}")


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built, beyond what the graph says.

    Attributes:
        batch: smallest, optimal and largest batch.
        targets: TensorRT-RTX only: compute capabilities to compile for, for example ``sm_86``; none: all from Ampere
            on. The full TensorRT compiles for the GPU it finds.
        compatibility: the full TensorRT only: where else the engine must run, see
            :data:`floats_edge.artifacts.manifest.Compatibility`. Such engines may be slower.
        dla: the full TensorRT on a Jetson: deep learning accelerator that runs what it can, the GPU runs the rest.

    Raises:
        BackendError: the options do not go together.
    """

    batch: tuple[int, int, int] = (1, 1, 1)
    targets: tuple[str, ...] = ()
    compatibility: tuple[Compatibility, ...] = ()
    dla: int | None = None

    def __post_init__(self) -> None:
        smallest, optimal, largest = self.batch
        if not 1 <= smallest <= optimal <= largest:
            raise BackendError(
                f"batches {smallest}, {optimal}, {largest} are not a smallest, an optimal and a largest one.",
                fix="give three numbers from 1 on in ascending order, for example 1, 8, 32",
            )
        for target in self.targets:
            if not _TARGET.fullmatch(target):
                raise BackendError(f"{target!r} is no compute capability.", fix="write it like sm_86 or sm_120")
        if {"ampere+", "same-cc"} <= set(self.compatibility):
            raise BackendError("ampere+ and same-cc exclude each other.", fix="give one of them; ampere+ is the wider")
        if self.dla is not None and smallest != largest:
            raise BackendError(
                f"a DLA takes one batch size, and {smallest} to {largest} was asked for.",
                fix=f"give one size with --dla, for example --batch {optimal}",
            )


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        onnx: a graph whose input ``images`` ``[N, C, H, W]`` has a dynamic batch axis; nothing else is dynamic.
        plan: the file to write.
        options: how.
        refittable: names of the weights that may be refitted; none: an engine that cannot be.
        sparse: whether TensorRT may look for 2:4 sparsity and use it where that is faster.
    """

    onnx: Path
    plan: Path
    options: EngineOptions = EngineOptions()
    refittable: tuple[str, ...] = ()
    sparse: bool = False


@dataclass(frozen=True)
class BuiltEngine:
    """A plan and what can run it: ``flavour`` to ``targets`` as in :class:`floats_edge.artifacts.manifest.Engine`.

    Attributes:
        gpu: model of the GPU that tactics were timed on; None where none was needed.
        layers: JSON of TensorRT's engine inspector; None where no GPU is there to load the engine.
        log: what TensorRT said.
    """

    flavour: Flavour
    version: str
    platform: str
    targets: tuple[str, ...]
    gpu: str | None = None
    layers: str | None = None
    log: str = ""
