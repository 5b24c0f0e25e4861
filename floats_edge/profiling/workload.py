"""What each layer of a bundle has to compute and to move for one image: from its graph, nothing measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.records import Reading

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Bytes of a number, by precision."""


@dataclass(frozen=True)
class Workload:
    """A layer with weights, for one image.

    Attributes:
        name: of the model's layer, as in the manifest.
        operator: of the ONNX node that multiplies.
        tensors: names of nodes and tensors of the graph that belong to this layer: what a backend's kernels are
            called after.
        macs: multiply-accumulates, zeros counted.
        weights: numbers in the weight.
        nonzeros: of them inside the mask.
        inputs: numbers read, the weight apart.
        outputs: numbers written.
    """

    name: str
    operator: str
    tensors: tuple[str, ...]
    macs: int
    weights: int
    nonzeros: int
    inputs: int
    outputs: int

    def moved_bytes(self, batch: int, precision: str) -> int:
        """Bytes of the weight, and of all inputs and outputs of a batch, each once."""
        return BYTES[precision] * (self.weights + batch * (self.inputs + self.outputs))


def layer_workloads(bundle: Bundle) -> tuple[Workload, ...]:
    """Every layer of the manifest in the graph's order; a layer that is not found in the graph is left out.

    Raises:
        ArtifactError: the graph is not what was exported.
    """
    import onnx

    manifest = bundle.manifest
    model = onnx.load_model_from_string(bundle.read(manifest.graphs[0].file))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = _shapes(inferred)
    makers = {output: node for node in inferred.node for output in node.output}
    layers = {layer.name: layer for layer in manifest.layers}
    found = []
    for node in inferred.node:
        name = _layer_name(node, makers, layers) if node.op_type in WEIGHTED else None
        if name is None or node.input[0] not in shapes or node.output[0] not in shapes:
            continue
        layer, output = layers[name], math.prod(shapes[node.output[0]])
        found.append(
            Workload(
                name=name,
                operator=node.op_type,
                tensors=(node.name, *_followers(node, inferred)),
                macs=output * math.prod(layer.shape[1:]),
                weights=math.prod(layer.shape),
                nonzeros=layer.nonzeros,
                inputs=math.prod(shapes[node.input[0]]),
                outputs=output,
            )
        )
    return tuple(found)


def needed_memory(workloads: Sequence[Workload], batch: int, precision: str) -> dict[str, Reading]:
    """What the graph needs at least, in MiB: computed, not measured; a backend takes more."""
    weights = BYTES[precision] * sum(work.weights for work in workloads)
    widest = max((batch * (work.inputs + work.outputs) for work in workloads), default=0)
    how = f"computed from the graph: {len(workloads)} layers in {precision}"
    return {
        "weights": Reading(value=weights / 2**20, unit="MiB", source=f"{how}, zeros counted"),
        "activations, at least": Reading(
            value=BYTES[precision] * widest / 2**20, unit="MiB", source=f"{how}, input and output of the widest"
        ),
    }


def _shapes(graph: "onnx.GraphProto") -> dict[str, tuple[int, ...]]:
    values = (*graph.input, *graph.value_info, *graph.output)
    return {
        value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _layer_name(
    node: "onnx.NodeProto", makers: Mapping[str, "onnx.NodeProto"], layers: Mapping[str, object]
) -> str | None:
    """The layer whose weight a node multiplies with: by the name of the weight or of what it is made from."""
    waiting = [node.input[1]]
    while waiting:
        tensor = waiting.pop()
        name = tensor.partition(".weight")[0]
        if name in layers:
            return name
        waiting += makers[tensor].input if tensor in makers else []
    return None


def _followers(node: "onnx.NodeProto", graph: "onnx.GraphProto") -> tuple[str, ...]:
    """The output of a node, and that of an activation after it: backends name a fused kernel after either."""
    output = node.output[0]
    fused = [after for after in graph.node if output in after.input and after.op_type in ("Relu", "Cast")]
    return (output, *(name for after in fused for name in (after.name, after.output[0])))
