"""The operations of a twin that look along axes: sums, means, norms and the like."""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_tensors import Maker, Run, axes_of

Along = Callable[[Tensor, list[int], bool], Tensor]
"""Reduces a tensor along axes, which are kept with size one if that is asked for."""


_IDLE = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
"""What leaves a tensor as it is along no axes; of the others versions of ONNX think differently."""


def _reduction(along: Along) -> Maker:
    """A reduction along the axes of its second input; none are all, unless it is told otherwise."""

    def make(node: Node) -> Run:
        keep, none = bool(node.attributes.get("keepdims", 1)), node.attributes.get("noop_with_empty_axes", 0)

        def run(x: Tensor, named: Tensor | None = None) -> Tensor:
            axes = axes_of(named, x.dim())
            if not axes and none:
                return _idle(node, x)
            return along(x, axes or list(range(x.dim())), keep)

        return run

    return make


def _idle(node: Node, x: Tensor) -> Tensor:
    if node.operator not in _IDLE:
        raise GraphError(f"has a {node.operator} along no axes, of which no twin is made")
    return x


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    product = reduce(lambda left, axis: left.prod(axis, keepdim=True), axes, x)
    return product if keep else product.squeeze(axes)


def _norm(order: int) -> Along:
    return lambda x, axes, keep: torch.linalg.vector_norm(x, order, axes, keep)


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Maker:
    def make(node: Node) -> Run:
        axis = node.attributes.get("axis", -1)
        return lambda x: function(x, axis)

    return make


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """One at the first of the largest, which has no gradient."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _lp_normalisation(node: Node) -> Run:
    """Zeros stay zeros."""
    axis, order = node.attributes.get("axis", -1), node.attributes.get("p", 2)
    if order not in (1, 2):
        raise GraphError(f"has an LpNormalization of order {order}, which ONNX does not know")

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, order, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return run


REDUCTIONS: dict[str, Maker] = {
    "Hardmax": _softmax(_hardmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "LpNormalization": _lp_normalisation,
    "ReduceL1": _reduction(_norm(1)),
    "ReduceL2": _reduction(_norm(2)),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: torch.amax(x, axes, keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: torch.mean(x, axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: torch.amin(x, axes, keep)),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: torch.sum(x, axes, keep, dtype=x.dtype)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: torch.sum(x.square(), axes, keep, dtype=x.dtype)),
    "Softmax": _softmax(torch.softmax),
}
"""Makers by the name of the operation."""
