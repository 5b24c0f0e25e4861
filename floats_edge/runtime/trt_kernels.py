"""Time of every kernel of a TensorRT engine, by IProfiler, and which of them count on 2:4 weights, by the inspector.

Never run on a GPU so far: tested against a stand-in of TensorRT that is built to NVIDIA's API reference.
"""

import json
from collections.abc import Callable
from typing import Any

from floats_edge.runtime.base import Kernels

_SPARSE_TACTICS = ("sparse", "spgemm", "spconv")


def time_kernels(trt: Any, context: Any, infer: Callable[[], object], count: int) -> Kernels:
    """Attach a profiler to a context, infer ``count`` times, and detach it.

    Args:
        trt: the module of the engine's flavour.
        context: of the engine; ``enqueueV3`` reports to its profiler after every inference, which slows it down.
        infer: runs one inference and waits for it.
        count: inferences.
    """

    class Times(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.ms: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.ms.setdefault(layer_name, []).append(ms)

    times = Times()
    context.profiler = times
    for _ in range(count):
        infer()
    context.profiler = None
    in_us = {name: [1000 * value for value in values] for name, values in times.ms.items()}
    return Kernels(in_us, "TensorRT IProfiler", sparse_kernels(trt, context))


def sparse_kernels(trt: Any, context: Any) -> frozenset[str] | None:
    """Names of the kernels whose tactic is a sparse one; None where the engine was built without layer details."""
    inspector = context.engine.create_engine_inspector()
    inspector.execution_context = context
    layers = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON)).get("Layers", [])
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        return None
    return frozenset(
        layer["Name"]
        for layer in layers
        if any(word in str(layer.get("TacticName", "")).lower() for word in _SPARSE_TACTICS)
    )
