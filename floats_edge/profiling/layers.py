"""Time per layer: a backend's kernels joined with the model's layers. Apart from the latencies: tracing slows down."""

import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floats_edge.artifacts.records import Layer, Trace
from floats_edge.errors import BackendError
from floats_edge.profiling.bench import random_images
from floats_edge.profiling.workload import Workload
from floats_edge.runtime.base import Kernels, Predictor

OpenTraced = Callable[[Path], Predictor]

_WARMUP = 10
_COUNT = 100
_DECORATION = re.compile(
    r"^InsertedPrecisionFreeCast_|_nchwc$|_token_\d+$"  # ONNX Runtime's optimiser
    r"|^node_of_"  # TensorRT's parser, before what a node without a name writes
    r"|(_U\d+)?_myl\d+_\d+( \[profile \d+\])?$"  # TensorRT 10 and TensorRT-RTX: their compiler, Myelin
)
"""What a backend adds to the name of a node or tensor."""


def trace_layers(open_traced: OpenTraced, batch: int, workloads: Sequence[Workload]) -> Trace:
    """Time every layer in a process of its own (``isolation.run_isolated``).

    Raises:
        BackendError: the backend failed, or does not tell the time of its kernels.
    """
    with tempfile.TemporaryDirectory() as folder, open_traced(Path(folder)) as predictor:
        images = random_images(predictor.image_shape, batch)
        for _ in range(_WARMUP):
            predictor.predict(images)
        kernels = predictor.kernels(images, _COUNT)
        if kernels is None or not kernels.times:
            raise BackendError(
                f"{predictor.backend} does not tell the time of its layers.", fix="profile another backend too"
            )
        return Trace(
            backend=predictor.backend,
            batch=batch,
            n=_COUNT,
            source=kernels.source,
            device=predictor.computes_on,
            threads=predictor.threads,
            peaks=None,
            layers=join_layers(kernels, workloads, batch),
        )


def join_layers(kernels: Kernels, workloads: Sequence[Workload], batch: int) -> tuple[Layer, ...]:
    """Layers by their share of the time; what belongs to no layer stands by the name of its kernel.

    Layers that share a kernel stand together: nobody can tell how its time is shared out. Where each also has a kernel
    of its own that multiplies, only what they share does.

    Args:
        kernels: and their times.
        workloads: the layers of the model.
        batch: images per inference.
    """
    groups = _groups(kernels, workloads)
    medians = [
        statistics.median(map(sum, zip(*(kernels.times[kernel] for kernel in group.kernels), strict=True)))
        for group in groups
    ]
    total = sum(medians) or 1.0
    layers = [
        Layer(
            **_work([work for work in workloads if group.working and work.name in group.layers], batch),
            name=" + ".join(work.name for work in workloads if work.name in group.layers) or group.kernels[0],
            time_us=time_us,
            share=time_us / total,
            sparse=None if kernels.sparse is None else not kernels.sparse.isdisjoint(group.kernels),
        )
        for group, time_us in zip(groups, medians, strict=True)
    ]
    return tuple(sorted(layers, key=lambda layer: -layer.time_us))


@dataclass
class _Group:
    """Kernels that stand together.

    Attributes:
        layers: that they belong to, by name; none: the kernel stands by its own.
        kernels: by name.
        working: whether they do all the work of these layers.
    """

    layers: set[str]
    kernels: list[str]
    working: bool = True


def _groups(kernels: Kernels, workloads: Sequence[Workload]) -> list[_Group]:
    owners = {kernel: _owners(kernels.origins.get(kernel) or _parts(kernel), workloads) for kernel in kernels.times}
    # A backend calls a kernel that multiplies after its node; one that it calls otherwise may multiply or move data.
    alone = [layers for kernel, layers in owners.items() if layers == _multiplied(_parts(kernel), workloads)]
    served = set().union(*(layers for layers in alone if len(layers) == 1))
    groups: list[_Group] = []
    for kernel, layers in owners.items():
        working = len(layers) < 2 or not layers <= served
        group = _Group(layers, [kernel], working)
        for other in [other for other in groups if other.working == working and _together(other, group)]:
            group = _Group(other.layers | group.layers, other.kernels + group.kernels, working)
            groups.remove(other)
        groups.append(group)
    return groups


def _together(one: _Group, other: _Group) -> bool:
    return bool(one.layers & other.layers) if one.working else one.layers == other.layers


def _parts(kernel: str) -> list[str]:
    """The names that a kernel's name is made of; several where it was fused, or does the work of several at once."""
    return re.split(r" *(?:\|\||\+) *", kernel)


def _owners(nodes: Sequence[str], workloads: Sequence[Workload]) -> set[str]:
    """The layers that multiply in these nodes; where none does, those that they follow."""
    followed = {work.name for work in workloads if not _plain(nodes).isdisjoint(work.followers)}
    return _multiplied(nodes, workloads) or followed


def _multiplied(nodes: Sequence[str], workloads: Sequence[Workload]) -> set[str]:
    return {work.name for work in workloads if not _plain(nodes).isdisjoint(work.tensors)}


def _plain(nodes: Sequence[str]) -> set[str]:
    """The names of nodes, and these without what a backend adds."""
    return {*nodes, *(_DECORATION.sub("", node) for node in nodes)}


def _work(layers: Sequence[Workload], batch: int) -> dict[str, Any]:
    """What the layers of a row have to do together.

    Bytes are of single layers only: several may read the same input, or hand a tensor on without writing it.
    """
    precisions = {work.precision for work in layers}
    return {
        "operator": " + ".join(dict.fromkeys(work.operator for work in layers)),
        "precision": precisions.pop() if len(precisions) == 1 else None,
        "macs": batch * sum(work.macs for work in layers) if layers else None,
        "weights": sum(work.weights for work in layers) if layers else None,
        "nonzeros": sum(work.nonzeros for work in layers) if layers else None,
        "bytes": layers[0].moved_bytes(batch) if len(layers) == 1 else None,
    }
