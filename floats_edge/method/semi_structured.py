"""FLOATS, 2:4: two of every four consecutive input channels, as NVIDIA's sparse tensor cores read them.

A group is four consecutive input channels at one place (output channel, kernel row, kernel column). The masks move as
irregular ones do, but a weight is swapped only for another of its group. Sources: Mishra et al., "Accelerating Sparse
Deep Neural Networks" (2021) for the pattern; for its use in FLOATS see README.md.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from floats_edge.method.masks import MaskedLayer

GROUP, KEPT = 4, 2


def is_eligible(shape: tuple[int, ...]) -> bool:
    """Whether a weight ``[out, in, ...]`` divides into groups."""
    return shape[1] % GROUP == 0


def random_mask(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A bool mask of ``shape`` with two entries set in every group, uniformly at random; all of it if not eligible."""
    if not is_eligible(shape):
        return torch.ones(shape, dtype=torch.bool)
    order = groups(torch.rand(shape, generator=generator)).argsort(dim=-1)
    return ungrouped(order < KEPT, shape)


def is_two_of_four(weight: Tensor) -> bool:
    """Whether no group of a weight ``[out, in, ...]`` holds more than two non-zeros."""
    return is_eligible(tuple(weight.shape)) and bool(((groups(weight) != 0).sum(dim=-1) <= KEPT).all())


def swap_within_groups(layers: Mapping[str, MaskedLayer], fraction: float) -> dict[str, Tensor]:
    """New masks: the smallest active weight of a group for the inactive one of largest gradient.

    Where the smallest active weights are smallest over the layer, groups are swapped, until ``fraction`` of the active
    weights are. Layers that are not eligible stay dense.
    """
    masks: dict[str, Tensor] = {}
    for name, layer in layers.items():
        swaps = min(int(fraction * int(layer.mask.sum())), layer.mask.numel() // GROUP)
        if swaps == 0 or not is_eligible(tuple(layer.mask.shape)):
            continue
        mask = groups(layer.mask)
        weakest, dropped = groups(layer.theta).abs().masked_fill(~mask, torch.inf).flatten(0, -2).min(dim=-1)
        grown = groups(layer.gradient).masked_fill(mask, -torch.inf).flatten(0, -2).argmax(dim=-1)
        chosen = weakest.topk(swaps, largest=False).indices
        moved = mask.flatten(0, -2).clone()
        moved[chosen, dropped[chosen]] = False
        moved[chosen, grown[chosen]] = True
        masks[name] = ungrouped(moved.view(mask.shape), tuple(layer.mask.shape))
    return masks


def groups(weight: Tensor) -> Tensor:
    """``[out, in, ...]`` as ``[out, ..., in / 4, 4]``."""
    return weight.movedim(1, -1).unflatten(-1, (-1, GROUP))


def ungrouped(grouped: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`groups`, contiguous."""
    return grouped.flatten(-2).movedim(-1, 1).reshape(shape).contiguous()
