"""What computes each operation of a graph in PyTorch: all that ``export/schema/graph.json`` allows, and no other."""

from torch import Tensor

from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.twin_elementwise import ELEMENTWISE
from floats_edge.runtime.twin_indices import INDICES
from floats_edge.runtime.twin_layers import LAYERS
from floats_edge.runtime.twin_reductions import REDUCTIONS
from floats_edge.runtime.twin_resize import resize
from floats_edge.runtime.twin_shapes import SHAPES
from floats_edge.runtime.twin_tensors import Maker, Run


def _quantise(node: Node) -> Run:
    """A twin computes with what is to be quantised: it goes through, and so do gradients."""
    del node
    return lambda x, *_: x


def _dequantise(node: Node) -> Run:
    """Numbers that are not quantised in the twin, or constants that are."""
    axis = node.attributes.get("axis", 1)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        if x.is_floating_point():
            return x
        shape = [-1 if at == axis % x.dim() else 1 for at in range(x.dim())] if scale.dim() else []
        steps = x.to(scale.dtype)
        if zero is not None:
            steps = steps - zero.reshape(shape).to(scale.dtype)
        return steps.to(scale.device) * scale.reshape(shape)

    return run


OPERATORS: dict[str, Maker] = {
    **ELEMENTWISE,
    **INDICES,
    **LAYERS,
    **REDUCTIONS,
    **SHAPES,
    "DequantizeLinear": _dequantise,
    "QuantizeLinear": _quantise,
    "Resize": resize,
}
"""Makers by the name of the operation."""
