"""FLOATS, irregular: unstructured masks at a fixed global density, moved while the network trains.

One pass from a random mask: at every update the active weights of smallest magnitude are dropped and as many inactive
ones are grown where the running mean of the dense gradient's magnitude is largest. Sources: FLOATS (Kundu et al., arXiv
2204.00426); sparse momentum (Dettmers & Zettlemoyer 2019); RigL and Erdos-Renyi-Kernel densities (Evci et al. 2020).
"""

import math

import torch
from torch import Tensor

from floats_edge.method.conditioning import ConditionedWeight

GRADIENT_DECAY = 0.9
LAST_UPDATE = 0.75


def layer_counts(shapes: dict[str, tuple[int, ...]], density: float, rule: str) -> dict[str, int]:
    """How many weights of each layer stay active.

    Args:
        shapes: weight shape of each layer.
        density: active fraction over all layers, in (0, 1].
        rule: ``erk`` (a layer's density grows with the sum of its dimensions over their product) or ``uniform``.

    Returns:
        Counts whose sum is ``round(density * total)``.

    Raises:
        ValueError: the density leaves some layer without a single weight.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    budget = round(density * sum(sizes.values()))
    if rule == "uniform":
        wanted = {name: density * size for name, size in sizes.items()}
    elif rule == "erk":
        wanted = _erk(shapes, sizes, budget)
    else:
        raise ValueError(f"unknown layer-density rule {rule!r}")
    counts = {name: min(sizes[name], int(want)) for name, want in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    for name in by_remainder[: budget - sum(counts.values())]:
        counts[name] += 1
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        raise ValueError(f"density {density:g} leaves no weight in {', '.join(empty)}")
    return counts


def _erk(shapes: dict[str, tuple[int, ...]], sizes: dict[str, int], budget: int) -> dict[str, float]:
    """Real-valued counts proportional to the sum of each layer's dimensions; a layer is at most dense."""
    dense: set[str] = set()
    while True:
        free = budget - sum(sizes[name] for name in dense)
        scale = free / max(1, sum(sum(shape) for name, shape in shapes.items() if name not in dense))
        wanted = {name: float(sizes[name]) if name in dense else scale * sum(shapes[name]) for name in shapes}
        over = {name for name in shapes if name not in dense and wanted[name] > sizes[name]}
        if not over:
            return wanted
        dense |= over


def random_mask(shape: torch.Size, count: int, generator: torch.Generator) -> Tensor:
    """A bool mask of ``shape`` with ``count`` entries set, uniformly at random."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[torch.randperm(mask.numel(), generator=generator)[:count]] = True
    return mask


def swap_fraction(initial: float, progress: float) -> float:
    """Share of a layer's active weights to swap at ``progress`` in [0, 1] of training: cosine-decayed to 0 at 75 %."""
    if progress >= LAST_UPDATE:
        return 0.0
    return initial * 0.5 * (1.0 + math.cos(math.pi * progress / LAST_UPDATE))


class MaskUpdater:
    """Keeps masked weights at zero and moves the masks; holds each weight's running mean of |gradient|."""

    def __init__(self, weights: dict[str, ConditionedWeight]) -> None:
        self.weights = weights
        self.gradient = {name: torch.zeros_like(weight.theta) for name, weight in weights.items()}

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """After backward, before the optimiser step: remember the dense gradient, then hide what the mask excludes."""
        for name, weight in self.weights.items():
            gradient = weight.theta.grad
            assert gradient is not None, f"{name} has no gradient"
            self.gradient[name].lerp_(gradient.abs(), 1.0 - GRADIENT_DECAY)
            gradient.mul_(weight.mask)

    @torch.no_grad()
    def update(self, fraction: float, optimizer: torch.optim.Optimizer) -> int:
        """Swap ``fraction`` of each layer's active weights; new weights start at 0, dropped ones lose their momentum.

        Returns:
            The number of weights swapped.
        """
        swapped = 0
        for name, weight in self.weights.items():
            active = int(weight.mask.sum())
            swaps = min(int(fraction * active), weight.mask.numel() - active)
            if swaps == 0:
                continue
            magnitude = weight.theta.abs().masked_fill(~weight.mask, torch.inf)
            growth = self.gradient[name].masked_fill(weight.mask, -torch.inf)
            dropped = magnitude.flatten().topk(swaps, largest=False).indices
            grown = growth.flatten().topk(swaps).indices
            mask = weight.mask.flatten().clone()
            mask[dropped] = False
            mask[grown] = True
            weight.set_mask(mask.view(weight.mask.shape))
            momentum = optimizer.state[weight.theta].get("momentum_buffer")
            if momentum is not None:
                momentum.mul_(weight.mask)
            swapped += swaps
        return swapped
