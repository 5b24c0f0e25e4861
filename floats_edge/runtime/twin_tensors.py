"""What every operation of a twin shares: how it is made, and how its tensors meet.

A twin computes in float32: that is the type of every tensor that is float32, float16 or bfloat16 in the graph. These
lie on the twin's device, but for single numbers; whole numbers, of which shapes are computed, may lie on the CPU.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from floats_edge.runtime import graph_rules
from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.onnx_bytes import GraphError

Run = Callable[..., Tensor | Sequence[Tensor]]
"""Computes the results of an operation from its inputs; None stands for an input that is left out."""
Maker = Callable[[Node], Run]
"""Turns an operation with its attributes into what computes it. Raises GraphError for what it does not know."""

FLOAT, INT8, INT64, HALF, BFLOAT16 = 1, 3, 7, 10, 16
ELEMENTS: dict[int, torch.dtype] = {
    FLOAT: torch.float32,
    2: torch.uint8,
    INT8: torch.int8,
    6: torch.int32,
    INT64: torch.int64,
    9: torch.bool,
    HALF: torch.float32,
    BFLOAT16: torch.float32,
}
"""What a twin computes each of ONNX's types in, by its number."""
_STORED: dict[int, torch.dtype] = {HALF: torch.float16, BFLOAT16: torch.bfloat16}


def plain(function: Run) -> Maker:
    """The maker of an operation without attributes."""
    return lambda _: function


def constant(tensor: graph_rules.Tensor) -> Tensor:
    """A constant of a graph, in a copy."""
    stored = _STORED.get(tensor.element, ELEMENTS[tensor.element])
    array = np.frombuffer(tensor.raw, np.uint8).copy()
    return torch.from_numpy(array).view(stored).reshape(tensor.dims).to(ELEMENTS[tensor.element])


def together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one type, on one device but for single numbers.

    Raises:
        GraphError: they are of several types.
    """
    if any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        raise GraphError("combines tensors of several types")
    return on_one_device(*tensors)


def on_one_device(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors on the device of those that are not on the CPU, if there are any; single numbers may stay."""
    device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
    return tensors if device is None else tuple(x.to(device) if x.dim() else x for x in tensors)


def numbers(tensor: Tensor) -> list[int]:
    """The elements of an input that says a shape, axes or the like."""
    return tensor.reshape(-1).tolist()


def axes_of(tensor: Tensor | None, rank: int) -> list[int]:
    """The axes that an input names, counted from the front and ascending; none if it is left out."""
    return [] if tensor is None else sorted(axis % rank for axis in numbers(tensor))
