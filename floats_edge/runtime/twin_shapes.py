"""The operations of a twin that make, fill, join and rearrange tensors; no number in them changes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_tensors import Maker, Run, axes_of, constant, numbers, plain, together


def _constant(node: Node) -> Run:
    ((kind, value),) = node.attributes.items()
    if kind == "value":
        made = constant(value)
    else:
        made = torch.tensor(value, dtype=torch.int64 if kind in ("value_int", "value_ints") else torch.float32)
    return lambda: made


def _filled(node: Node) -> Run:
    stated = node.attributes.get("value")
    value = torch.zeros(1) if stated is None else constant(stated)
    if value.numel() != 1:
        raise GraphError("has a ConstantOfShape of several values")
    return lambda shape: value.reshape(()).expand(numbers(shape))


def _shape(node: Node) -> Run:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def _range(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    first, last, by = (tensor.item() for tensor in together(start, limit, step))
    if not by or (last - first) * by < 0:  # none, as ONNX has it
        return start.new_empty(0)
    return torch.arange(first, last, by, dtype=start.dtype)


def _reshape(node: Node) -> Run:
    """A size of zero means that of the tensor, unless zeros are allowed."""
    zeros = node.attributes.get("allowzero", 0)

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = numbers(shape)
        return x.reshape([x.shape[at] if not (size or zeros) else size for at, size in enumerate(sizes)])

    return run


def _flatten(node: Node) -> Run:
    axis = node.attributes.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        at = axis if axis >= 0 else axis + x.dim()
        return x.reshape(int(torch.Size(x.shape[:at]).numel()), torch.Size(x.shape[at:]).numel())

    return run


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, numbers(shape)))


def _squeeze(x: Tensor, named: Tensor | None = None) -> Tensor:
    return x.squeeze() if named is None else x.squeeze(axes_of(named, x.dim()))


def _unsqueeze(x: Tensor, named: Tensor) -> Tensor:
    for axis in axes_of(named, x.dim() + named.numel()):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: Node) -> Run:
    order = node.attributes.get("perm")
    return lambda x: x.permute(list(reversed(range(x.dim()))) if order is None else order)


def _concat(node: Node) -> Run:
    axis = node.attributes.get("axis", 0)
    return lambda *tensors: torch.cat(together(*tensors), axis)


def _split(node: Node) -> Run:
    """Into parts of the sizes given, or into equal ones of which the last may be smaller."""
    axis, parts = node.attributes.get("axis", 0), node.attributes.get("num_outputs", len(node.outputs))

    def run(x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
        if sizes is not None:
            return x.split(numbers(sizes), axis)
        size = x.shape[axis]
        each = -(-size // parts)
        return x.split([min(each, max(size - each * index, 0)) for index in range(parts)], axis)

    return run


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(numbers(repeats))


def _depth_to_space(node: Node) -> Run:
    block, column_first = node.attributes.get("blocksize", 0), node.attributes.get("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        if column_first:
            return functional.pixel_shuffle(x, block)
        count, channels, height, width = x.shape
        blocks = x.reshape(count, block, block, channels // block**2, height, width)
        return blocks.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, height * block, width * block)

    return run


def _space_to_depth(node: Node) -> Run:
    block = node.attributes.get("blocksize", 0)

    def run(x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        blocks = x.reshape(count, channels, height // block, block, width // block, block)
        return blocks.permute(0, 3, 5, 1, 2, 4).reshape(count, -1, height // block, width // block)

    return run


def _einsum(node: Node) -> Run:
    equation = node.attributes.get("equation", "")
    if "->" not in equation:
        raise GraphError("has an Einsum that does not name its result")
    return lambda *tensors: torch.einsum(equation, *together(*tensors))


SHAPES: dict[str, Maker] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "DepthToSpace": _depth_to_space,
    "Einsum": _einsum,
    "Expand": plain(_expand),
    "Flatten": _flatten,
    "Range": plain(_range),
    "Reshape": _reshape,
    "Shape": _shape,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": plain(_squeeze),
    "Tile": plain(_tile),
    "Transpose": _transpose,
    "Unsqueeze": plain(_unsqueeze),
}
"""Makers by the name of the operation."""
