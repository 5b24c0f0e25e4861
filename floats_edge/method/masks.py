"""FLOATS, irregular: unstructured masks at a fixed global density, moved while the network trains.

One pass from a random mask: at every update the active weights of smallest magnitude are dropped and as many inactive ones
are grown where the running mean of the dense gradient's magnitude is largest. Sources: FLOATS (Kundu et al., arXiv
2204.00426); sparse momentum (Dettmers & Zettlemoyer 2019); RigL and its Erdos-Renyi-Kernel densities (Evci et al. 2020).
"""

import math

import torch
from torch import Tensor

from floats_edge.method.conditioning import ConditionedLayer

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
    """Real-valued counts proportional to the sum of each layer's dimensions; layers that would exceed 1 become dense."""
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
    """Keeps the masked weights of a network at zero and moves its masks; holds each layer's mean |gradient|."""

    def __init__(self, layers: dict[str, ConditionedLayer]) -> None:
        self.layers = layers
        self.gradient = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """After backward, before the optimiser step: remember the dense gradient, then hide what the mask excludes."""
        for name, layer in self.layers.items():
            gradient = layer.weight.grad
            assert gradient is not None, f"{name} has no gradient"
            self.gradient[name].lerp_(gradient.abs(), 1.0 - GRADIENT_DECAY)
            gradient.mul_(layer.mask)

    @torch.no_grad()
    def update(self, fraction: float, optimizer: torch.optim.Optimizer) -> int:
        """Swap ``fraction`` of each layer's active weights; new weights start at 0, dropped ones lose their momentum.

        Returns:
            The number of weights swapped.
        """
        swapped = 0
        for name, layer in self.layers.items():
            active = int(layer.mask.sum())
            swaps = min(int(fraction * active), layer.mask.numel() - active)
            if swaps == 0:
                continue
            magnitude = layer.weight.abs().masked_fill(~layer.mask, torch.inf).view(-1)
            growth = self.gradient[name].masked_fill(layer.mask, -torch.inf).view(-1)
            mask = layer.mask.clone()
            mask.view(-1)[magnitude.topk(swaps, largest=False).indices] = False
            mask.view(-1)[growth.topk(swaps).indices] = True
            layer.set_mask(mask)
            momentum = optimizer.state[layer.weight].get("momentum_buffer")
            if momentum is not None:
                momentum.mul_(mask)
            swapped += swaps
        return swapped
