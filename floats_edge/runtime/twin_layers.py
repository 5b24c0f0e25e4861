"""The operations of a twin that weigh: convolutions, matrix products, pools and normalisations."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_tensors import FLOAT, Maker, Run, plain

_CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
_MAX_POOLS = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
_AVERAGE_POOLS = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}
"""By the number of axes of their images."""


def _of_rank(functions: dict[int, Callable[..., Tensor]], node: Node, images: Tensor) -> Callable[..., Tensor]:
    if images.dim() not in functions:
        raise GraphError(f"has a {node.operator} of images of {images.dim() - 2} axes")
    return functions[images.dim()]


def _evenly(pads: Sequence[int]) -> Sequence[int] | None:
    """What is added at both ends of each axis, if that is the same."""
    half = len(pads) // 2
    return pads[:half] if pads[:half] == pads[half:] else None


def _padded(images: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Images with the pads that ONNX names: where axes begin, then where they end."""
    half = len(pads) // 2
    return functional.pad(images, [pad for axis in reversed(range(half)) for pad in pads[axis::half]], value=value)


def _convolution(node: Node) -> Run:
    strides, dilations = node.attributes.get("strides", 1), node.attributes.get("dilations", 1)
    pads, group = node.attributes.get("pads", [0, 0]), node.attributes.get("group", 1)
    even = _evenly(pads) if any(pads) else 0

    def run(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        convolve = _of_rank(_CONVOLUTIONS, node, images)
        if even is None:
            return convolve(_padded(images, pads), weight, bias, strides, 0, dilations, group)
        return convolve(images, weight, bias, strides, even, dilations, group)

    return run


class _Window:
    """The window of a pool; ``even`` are the pads, where PyTorch can take them, None where they must be made."""

    def __init__(self, node: Node) -> None:
        self.kernel: list[int] = node.attributes.get("kernel_shape", [])
        rank = len(self.kernel)
        self.strides: list[int] = node.attributes.get("strides", [1] * rank)
        self.dilations: list[int] = node.attributes.get("dilations", [1] * rank)
        self.pads: list[int] = node.attributes.get("pads", [0] * 2 * rank)
        self.ceil = bool(node.attributes.get("ceil_mode", 0))
        even = _evenly(self.pads)
        fits = even is not None and all(2 * pad <= size for pad, size in zip(even, self.kernel, strict=True))
        self.even = even if fits else None


def _max_pool(node: Node) -> Run:
    window = _Window(node)

    def run(images: Tensor) -> Tensor:
        pool = _of_rank(_MAX_POOLS, node, images)
        if window.even is None:
            images = _padded(images, window.pads, -math.inf)
        return pool(images, window.kernel, window.strides, window.even or 0, window.dilations, window.ceil)

    return run


def _average_pool(node: Node) -> Run:
    window, whole = _Window(node), bool(node.attributes.get("count_include_pad", 0))
    if any(step != 1 for step in window.dilations):
        raise GraphError("has an AveragePool with dilations, of which no twin is made")

    def run(images: Tensor) -> Tensor:
        pool = _of_rank(_AVERAGE_POOLS, node, images)
        if window.even is not None:
            return pool(images, window.kernel, window.strides, window.even, window.ceil, whole)
        means = pool(_padded(images, window.pads), window.kernel, window.strides, 0, window.ceil)
        if whole:
            return means
        there = _padded(torch.ones_like(images[:1, :1]), window.pads)
        return means / pool(there, window.kernel, window.strides, 0, window.ceil)

    return run


def _spatial(images: Tensor) -> tuple[int, ...]:
    return tuple(range(2, images.dim()))


def _global_average(images: Tensor) -> Tensor:
    return images.mean(_spatial(images), keepdim=True)


def _global_max(images: Tensor) -> Tensor:
    return images.amax(_spatial(images), keepdim=True)


def _gemm(node: Node) -> Run:
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    flip_left, flip_right = node.attributes.get("transA", 0), node.attributes.get("transB", 0)

    def run(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = left.t() if flip_left else left
        weight = right if flip_right else right.t()
        if alpha == beta == 1 and (bias is None or bias.dim() == 1):
            return functional.linear(rows, weight, bias)
        product = alpha * functional.linear(rows, weight)
        return product if bias is None else product + beta * bias

    return run


def _batch_norm(node: Node) -> Run:
    epsilon = node.attributes.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)

    return run


def _instance_norm(node: Node) -> Run:
    """Each channel of each image is a group of its own."""
    epsilon = node.attributes.get("epsilon", 1e-5)
    return lambda x, scale, bias: functional.group_norm(x, x.shape[1], scale, bias, epsilon)


def _group_norm(node: Node) -> Run:
    """Opset 18 has a scale and a bias per group, 21 per channel."""
    _check_stash(node)
    groups, epsilon = node.attributes.get("num_groups", 0), node.attributes.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        channels = x.shape[1]
        if not groups or channels % groups or {len(scale), len(bias)} - {channels} not in (set(), {groups}):
            raise GraphError("has a GroupNormalization that does not fit its tensor")
        scale, bias = (vector.repeat_interleave(channels // len(vector)) for vector in (scale, bias))
        return functional.group_norm(x, groups, scale, bias, epsilon)

    return run


def _layer_norm(node: Node) -> Run:
    _check_stash(node)
    axis, epsilon = node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return functional.layer_norm(x, shape, scale, bias, epsilon)
        scaled = functional.layer_norm(x, shape, eps=epsilon) * scale
        return scaled if bias is None else scaled + bias

    return run


def _check_stash(node: Node) -> None:
    if node.attributes.get("stash_type", FLOAT) != FLOAT:
        raise GraphError(f"has a {node.operator} that computes in less than float32, of which no twin is made")


def _local_response_norm(node: Node) -> Run:
    size, bias = node.attributes.get("size", 0), node.attributes.get("bias", 1.0)
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    if not 1 <= size <= 2**20:
        raise GraphError("has an LRN of no channels")

    def run(x: Tensor) -> Tensor:
        squares = functional.pad(x.square().flatten(2).unsqueeze(1), (0, 0, (size - 1) // 2, size // 2))
        means = functional.avg_pool2d(squares, (size, 1), stride=1).reshape(x.shape)
        return x / (bias + alpha * means) ** beta

    return run


LAYERS: dict[str, Maker] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "Gemm": _gemm,
    "GlobalAveragePool": plain(_global_average),
    "GlobalMaxPool": plain(_global_max),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": plain(torch.matmul),
    "MaxPool": _max_pool,
}
"""Makers by the name of the operation."""
