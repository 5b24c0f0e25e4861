"""Time per layer: a backend's kernels joined with the model's layers. Apart from the latencies: tracing slows down."""

import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from floats_edge.artifacts.records import Layer, Trace
from floats_edge.errors import BackendError
from floats_edge.profiling.bench import random_images
from floats_edge.profiling.workload import Workload
from floats_edge.runtime.base import Kernels, Predictor

OpenTraced = Callable[[Path], Predictor]

_WARMUP = 10
_COUNT = 100
_DECORATION = re.compile(r"^InsertedPrecisionFreeCast_|_nchwc$|_token_\d+$")
"""What ONNX Runtime's optimiser adds to the name of a node or tensor."""


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
        if kernels is None:
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

    Args:
        kernels: and their times.
        workloads: the layers of the model.
        batch: images per inference.
    """
    owners = {tensor: workload for workload in workloads for tensor in workload.tensors}
    groups: dict[str, list[str]] = {}
    for kernel in kernels.times:
        owner = _owner(kernel, owners)
        groups.setdefault(owner.name if owner else kernel, []).append(kernel)
    medians = {
        name: statistics.median(map(sum, zip(*(kernels.times[kernel] for kernel in group), strict=False)))
        for name, group in groups.items()
    }
    total = sum(medians.values()) or 1.0
    by_name = {workload.name: workload for workload in workloads}
    layers = []
    for name, time_us in sorted(medians.items(), key=lambda item: -item[1]):
        work = by_name.get(name)
        layers.append(
            Layer(
                name=name,
                operator=work.operator if work else "",
                precision=work.precision if work else None,
                time_us=time_us,
                share=time_us / total,
                macs=work.macs * batch if work else None,
                weights=work.weights if work else None,
                nonzeros=work.nonzeros if work else None,
                bytes=work.moved_bytes(batch) if work else None,
                sparse=None if kernels.sparse is None else not kernels.sparse.isdisjoint(groups[name]),
            )
        )
    return tuple(layers)


def _owner(kernel: str, owners: dict[str, Workload]) -> Workload | None:
    """The layer of a kernel: a name of the graph, decorated, or several that were fused, joined by ``+``."""
    for part in kernel.split("+"):
        name = _DECORATION.sub("", part.strip())
        if name in owners:
            return owners[name]
    return None
