"""Kernels of a TensorRT engine: times by IProfiler, and by the inspector what they were made of and which are 2:4.

Never run on a GPU so far: tested against a stand-in of TensorRT that is built to NVIDIA's API reference, and against
the names and metadata in plans that TensorRT-RTX 1.7 builds without one.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from floats_edge.runtime.base import Kernels

_SPARSE_TACTICS = ("sparse", "spgemm", "spconv")
_ONNX_NODE = re.compile(r"\[ONNX Layer: (.+?)(?: \| .*?)?\]")
"""A node in the metadata of a layer, perhaps with properties: onnx-tensorrt's importerUtils.cpp, ``processMetadata``;
control characters stand between those of fused layers."""


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
            self.us: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.us[layer_name] = self.us.get(layer_name, 0.0) + 1000 * ms

    times = Times()
    context.profiler = times
    inferences: list[dict[str, float]] = []
    for _ in range(count):
        times.us = {}
        infer()
        inferences.append(times.us)
    context.profiler = None
    names = dict.fromkeys(name for inference in inferences for name in inference)
    in_us = {name: [inference.get(name, 0.0) for inference in inferences] for name in names}
    layers = _inspected(trt, context)
    return Kernels(in_us, "TensorRT IProfiler, kernels launched one by one", _sparse(layers), kernel_origins(layers))


def _inspected(trt: Any, context: Any) -> list[dict[str, Any]]:
    """What the inspector tells of each layer; nothing where the engine was built without layer details."""
    inspector = context.engine.create_engine_inspector()
    inspector.execution_context = context
    told = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    layers = json.loads(told, strict=False).get("Layers", [])  # metadata holds control characters
    return layers if all(isinstance(layer, dict) for layer in layers) else []


def _sparse(layers: Sequence[dict[str, Any]]) -> frozenset[str] | None:
    """Names of the kernels whose tactic is a sparse one; None where there are no details."""
    if not layers:
        return None
    return frozenset(
        layer["Name"]
        for layer in layers
        if any(word in str(layer.get("TacticName", "")).lower() for word in _SPARSE_TACTICS)
    )


def kernel_origins(layers: Sequence[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The nodes of the ONNX graph that each kernel was made of, as the inspector tells; without any, it is left out."""
    found = {layer["Name"]: tuple(_ONNX_NODE.findall(str(layer.get("Metadata", "")))) for layer in layers}
    return {name: nodes for name, nodes in found.items() if nodes}
