"""Resized images in a twin: along each axis, a matrix tells how much of each old pixel is in each new one."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_tensors import Run, numbers

Array = NDArray[np.float32]
_MOST = 2**24
"""Numbers in a matrix."""


@dataclass(frozen=True)
class _Way:
    """How to resize, as ONNX's attributes say it."""

    mode: str
    places: str
    nearest: str
    sharpness: float
    inside: bool


def resize(node: Node) -> Run:
    """The maker of Resize to given sizes. No graph may have the mode for which a region and extrapolation count."""
    get = node.attributes.get
    way = _Way(
        mode=get("mode", "nearest"),
        places=get("coordinate_transformation_mode", "half_pixel"),
        nearest=get("nearest_mode", "round_prefer_floor"),
        sharpness=get("cubic_coeff_a", -0.75),
        inside=bool(get("exclude_outside", 0)),
    )
    axes = get("axes")
    if get("antialias", 0):
        raise GraphError("has a Resize with antialias, of which no twin is made")

    def run(x: Tensor, _region: Tensor | None, _scales: Tensor | None, sizes: Tensor) -> Tensor:
        named = range(x.dim()) if axes is None else [axis % x.dim() for axis in axes]
        for axis, size in zip(named, numbers(sizes), strict=True):
            if size != x.shape[axis]:
                matrix = torch.from_numpy(_matrix(way, x.shape[axis], size)).to(x.device)
                x = functional.linear(x.movedim(axis, -1), matrix).movedim(-1, axis)
        return x

    return run


@lru_cache(maxsize=64)
def _matrix(way: _Way, old: int, new: int) -> Array:
    """float32 ``[new, old]``."""
    if new * old > _MOST:
        raise GraphError("has a Resize of which no twin is made: its images are too large")
    places = _places(way.places, old, new)
    if way.mode == "nearest":
        return np.eye(old, dtype=np.float32)[_nearest(way.nearest, places).clip(0, old - 1)]
    if way.mode == "linear":
        places = places.clip(0, old - 1)
    first = np.floor(places)
    matrix = np.zeros((new, old), np.float32)
    for tap in (0, 1) if way.mode == "linear" else (-1, 0, 1, 2):
        share, at = _share(way, places - first - tap), first.astype(np.int64) + tap
        if way.inside:
            share = share * ((at >= 0) & (at < old))
        np.add.at(matrix, (np.arange(new), at.clip(0, old - 1)), share)
    if way.inside:
        matrix /= matrix.sum(1, keepdims=True)
    return matrix


def _places(places: str, old: int, new: int) -> Array:
    """Where new pixels lie among the old ones. Sizes are given, so half_pixel_symmetric is half_pixel."""
    scale, pixels = np.float32(new) / np.float32(old), np.arange(new, dtype=np.float32)
    last, steps = np.float32(old - 1), np.float32(max(new - 1, 1))
    if places == "asymmetric":
        return pixels / scale
    if places == "align_corners":
        return np.divide(pixels * last, steps, dtype=np.float32)
    if places == "pytorch_half_pixel" and new == 1:
        return np.zeros(1, np.float32)
    half = np.float32(0.5)
    return (pixels + half) / scale - half


def _nearest(mode: str, places: Array) -> NDArray[np.int64]:
    rounded = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
        "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    }[mode](places)
    return rounded.astype(np.int64)


def _share(way: _Way, distance: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """How much of a pixel at some distance is taken: linearly less, or by cubic convolution (Keys, 1981)."""
    x = np.abs(distance)
    if way.mode == "linear":
        return (1 - x).clip(0)
    a = np.float32(way.sharpness)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, np.float32(0)))
