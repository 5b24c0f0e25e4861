"""The operations of a twin that take numbers from where indices say: slices, gathers, scatters and pads."""

import torch
from torch import Tensor
from torch.nn import functional

from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_tensors import Maker, Run, numbers, plain, together


def _slice(x: Tensor, starts: Tensor, ends: Tensor, named: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    firsts, lasts = numbers(starts), numbers(ends)
    axes = list(range(len(firsts))) if named is None else [axis % x.dim() for axis in numbers(named)]
    by = [1] * len(axes) if steps is None else numbers(steps)
    for axis, *part in zip(axes, firsts, lasts, by, strict=True):
        x = _taken(x, axis, slice(*part))
    return x


def _taken(x: Tensor, axis: int, part: slice) -> Tensor:
    """Python's slices clamp as ONNX's do, but that an end before the first number is -1 of the front in ONNX."""
    size = x.shape[axis]
    if part.step > 0:
        return x[(*[slice(None)] * axis, part)]
    first, last = (index + size if index < 0 else index for index in (part.start, part.stop))
    indices = range(min(max(first, 0), size - 1), min(max(last, -1), size - 1), part.step)
    return x.index_select(axis, torch.tensor(indices, dtype=torch.int64, device=x.device))


def _gather(node: Node) -> Run:
    axis = node.attributes.get("axis", 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        at = axis % x.dim()
        chosen = x.index_select(at, _from_the_front(indices, x.shape[at]).reshape(-1).to(x.device))
        return chosen.reshape(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])

    return run


def _from_the_front(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices).long()


def _gather_nd(node: Node) -> Run:
    batch = node.attributes.get("batch_dims", 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        indices, shape = indices.to(x.device), indices.shape[batch:-1]
        groups = int(torch.Size(x.shape[:batch]).numel())
        each, rest = indices.reshape(groups, -1, indices.shape[-1]), x.reshape(groups, *x.shape[batch:])
        which = torch.arange(groups, device=x.device)[:, None]
        chosen = rest[(which, *each.unbind(-1))]
        return chosen.reshape(*x.shape[:batch], *shape, *x.shape[batch + indices.shape[-1] :])

    return run


def _scatter_nd(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    x, updates = together(x, updates)
    return x.index_put(indices.to(x.device).unbind(-1), updates)


def _pad(node: Node) -> Run:
    mode = node.attributes.get("mode", "constant")

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, named: Tensor | None = None) -> Tensor:
        axes = list(range(x.dim())) if named is None else [axis % x.dim() for axis in numbers(named)]
        sizes = numbers(pads)
        ends = {axis: (sizes[at], sizes[at + len(axes)]) for at, axis in enumerate(axes)}
        if mode == "constant":
            flat = [size for axis in reversed(range(x.dim())) for size in ends.get(axis, (0, 0))]
            return functional.pad(x, flat, value=0 if value is None else value.item())
        for axis, (before, after) in ends.items():
            if before or after:
                x = x.index_select(axis, _mirrored(mode, x.shape[axis], before, after).to(x.device))
        return x

    return run


def _mirrored(mode: str, size: int, before: int, after: int) -> Tensor:
    """Where each number of a padded axis comes from."""
    if min(before, after) < 0 or (mode == "reflect" and max(before, after) >= size):
        raise GraphError("has a Pad of which no twin is made")
    places = torch.arange(-before, size + after)
    if mode == "edge":
        return places.clamp(0, size - 1)
    return (size - 1) - (size - 1 - places.abs()).abs()


INDICES: dict[str, Maker] = {
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "ScatterND": plain(_scatter_nd),
    "Slice": plain(_slice),
}
"""Makers by the name of the operation."""
