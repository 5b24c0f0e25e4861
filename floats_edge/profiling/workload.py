"""What each layer of a bundle has to compute and to move for one image: from its graph, nothing measured."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Precision
from floats_edge.artifacts.records import Reading
from floats_edge.runtime.graph_check import read_graph

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Bytes of a number, by precision."""

_FLOATS: Mapping[int, Precision] = {1: "fp32", 10: "fp16", 16: "bf16"}
"""Precision by ``onnx.TensorProto.DataType``."""


@dataclass(frozen=True)
class Workload:
    """A layer with weights, for one image.

    Attributes:
        name: of the model's layer, as in the manifest.
        operator: of the ONNX node that multiplies.
        precision: of its numbers in the graph. A backend may compute in a wider one.
        tensors: names of the node that multiplies and of what it writes: what a backend's kernels are called after.
        macs: multiply-accumulates, zeros counted.
        weights: numbers in the weight.
        nonzeros: of them inside the mask.
        inputs: numbers read, the weight apart.
        outputs: numbers written.
        followers: names of activations and casts right after it, and of what they write: a backend may call a kernel
            after these instead, or give them to another layer's.
    """

    name: str
    operator: str
    precision: Precision
    tensors: tuple[str, ...]
    macs: int
    weights: int
    nonzeros: int
    inputs: int
    outputs: int
    followers: tuple[str, ...] = ()

    def moved_bytes(self, batch: int) -> int:
        """Bytes of the weight, and of all inputs and outputs of a batch, each once.

        At least: the output of an int8 layer counts as int8, as if it were quantised before it is written.
        """
        return BYTES[self.precision] * (self.weights + batch * (self.inputs + self.outputs))


def layer_workloads(bundle: Bundle) -> tuple[Workload, ...]:
    """Every layer of the manifest in the graph's order; a layer that is not found in the graph is left out.

    Raises:
        ArtifactError: the graph is not what was exported.
    """
    import onnx

    manifest = bundle.manifest
    model = read_graph(bundle, manifest.graphs[0].file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    tensors = _tensors(inferred)
    makers = {output: node for node in inferred.node for output in node.output}
    layers = {layer.name: layer for layer in manifest.layers}
    found = []
    for node in inferred.node:
        name = _layer_name(node, makers, layers) if node.op_type in WEIGHTED else None
        if name is None or node.input[0] not in tensors or node.output[0] not in tensors:
            continue
        layer, output = layers[name], tensors[node.output[0]]
        found.append(
            Workload(
                name=name,
                operator=node.op_type,
                precision=_precision(node, makers, output),
                tensors=(node.name, node.output[0]),
                macs=_size(output) * math.prod(layer.shape[1:]),
                weights=math.prod(layer.shape),
                nonzeros=layer.nonzeros,
                inputs=_size(tensors[node.input[0]]),
                outputs=_size(output),
                followers=_followers(node, inferred),
            )
        )
    return tuple(found)


def needed_memory(workloads: Sequence[Workload], batch: int) -> dict[str, Reading]:
    """What the graph needs at least, in MiB: computed, not measured; a backend takes more."""
    weights = sum(BYTES[work.precision] * work.weights for work in workloads)
    widest = max((BYTES[work.precision] * batch * (work.inputs + work.outputs) for work in workloads), default=0)
    counts = Counter(work.precision for work in workloads)
    layers = " and ".join(f"{count} in {precision}" for precision, count in counts.most_common())
    how = f"computed from the graph: layers with weights, {layers}"
    return {
        "weights": Reading(
            value=weights / 2**20, unit="MiB", source=f"{how}; zeros counted, biases and scales of channels not"
        ),
        "activations, at least": Reading(
            value=widest / 2**20, unit="MiB", source=f"{how}; input and output of the largest"
        ),
    }


def _tensors(graph: "onnx.GraphProto") -> "dict[str, onnx.TypeProto.Tensor]":
    """Type of every tensor whose shape is known, by name."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type for value in values if value.type.tensor_type.HasField("shape")}


def _size(tensor: "onnx.TypeProto.Tensor") -> int:
    return math.prod(dim.dim_value or 1 for dim in tensor.shape.dim)


def _precision(
    node: "onnx.NodeProto", makers: "Mapping[str, onnx.NodeProto]", output: "onnx.TypeProto.Tensor"
) -> Precision:
    """int8 where the weight is dequantised, which a backend fuses with the node; otherwise the type it computes in."""
    maker = makers.get(node.input[1])
    return "int8" if maker and maker.op_type == "DequantizeLinear" else _FLOATS[output.elem_type]


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
    """Names of the activations and casts that take a node's output, and of theirs."""
    fused = [after for after in graph.node if node.output[0] in after.input and after.op_type in ("Relu", "Cast")]
    return tuple(name for after in fused for name in (after.name, after.output[0]) if name)
