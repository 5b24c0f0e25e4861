"""FLOATS, irregular: unstructured masks at a fixed global density, moved while the network trains.

One pass from a random mask: at every update the active weights of smallest magnitude are dropped and as many inactive
ones are grown where the running mean of the dense gradient's magnitude is largest. Sources: FLOATS (Kundu et al., arXiv
2204.00426); sparse momentum (Dettmers & Zettlemoyer 2019); RigL and Erdos-Renyi-Kernel densities (Evci et al. 2020).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from floats_edge.method.conditioning import ConditionedWeight

GRADIENT_DECAY = 0.9
LAST_UPDATE = 0.75


def layer_counts(shapes: dict[str, tuple[int, ...]], density: float, rule: str) -> dict[str, int]:
    """How many weights of each layer stay active.

    Args:
        shapes: weight shape of each layer.
        density: active fraction over all layers, in (0, 1].
        rule: ``erk`` (a layer's density grows with the sum of its dimensions over their product) or ``uniform``, from
            which ``importance`` starts too.

    Returns:
        Counts whose sum is ``round(density * total)``.

    Raises:
        ValueError: the density leaves some layer without a single weight.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    budget = round(density * sum(sizes.values()))
    if rule in ("uniform", "importance"):
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


def largest_mask(scores: Tensor, count: int) -> Tensor:
    """A bool mask of the ``count`` largest of ``scores``; of equal ones the first."""
    mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    mask.view(-1)[scores.flatten().argsort(descending=True, stable=True)[:count]] = True
    return mask


def swap_fraction(initial: float, progress: float) -> float:
    """Share of a layer's active weights to swap at ``progress`` in [0, 1] of training: cosine-decayed to 0 at 75 %."""
    if progress >= LAST_UPDATE:
        return 0.0
    return initial * 0.5 * (1.0 + math.cos(math.pi * progress / LAST_UPDATE))


def forget(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, mask: Tensor) -> None:
    """Clear what an optimiser remembers of the entries of ``parameter`` outside ``mask``."""
    for remembered in optimizer.state[parameter].values():
        if isinstance(remembered, Tensor) and remembered.shape == mask.shape:
            remembered.mul_(mask)


@dataclass(frozen=True, eq=False)
class MaskedLayer:
    """What decides the next mask of a layer; tensors of the weight's shape."""

    theta: Tensor
    mask: Tensor  # bool
    gradient: Tensor  # running mean of the dense gradient's magnitude


Move = Callable[[Mapping[str, MaskedLayer], float], dict[str, Tensor]]
"""New masks from the layers and the share of active weights to swap; every mask changed has as many dropped as grown
weights, over all layers."""


def swap_within_layers(layers: Mapping[str, MaskedLayer], fraction: float) -> dict[str, Tensor]:
    """Irregular masks; each layer keeps its density."""
    return {
        name: swapped(layer, drop, drop) for name, layer in layers.items() if (drop := _swaps(layer.mask, fraction))
    }


def swap_across_layers(layers: Mapping[str, MaskedLayer], fraction: float) -> dict[str, Tensor]:
    """Irregular masks; what all layers drop is regrown in proportion to the mean gradient of their active weights.

    Source: sparse momentum, Dettmers & Zettlemoyer 2019, section 3. The density over all layers stays as it is.
    """
    drops = {name: _swaps(layer.mask, fraction) for name, layer in layers.items()}
    room = {name: int((~layer.mask).sum()) for name, layer in layers.items()}
    means = {name: layer.gradient[layer.mask].mean() for name, layer in layers.items()}
    # A mean is not finite where training diverged, which the next step tells.
    importance = {name: float(mean.nan_to_num(0.0, 0.0)) for name, mean in means.items()}
    grows = share_out(sum(drops.values()), importance, room)
    return {
        name: swapped(layer, drops[name], grows[name]) for name, layer in layers.items() if drops[name] or grows[name]
    }


def _swaps(mask: Tensor, fraction: float) -> int:
    """How many weights a layer may swap: some must be left, and as many must be inactive."""
    active = int(mask.sum())
    return min(int(fraction * active), mask.numel() - active)


def share_out(total: int, importance: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Split ``total`` in proportion to ``importance``, none above its ``room``; what does not fit goes elsewhere."""
    shares = dict.fromkeys(importance, 0)
    left = min(total, sum(room.values()))
    while left:
        open_ = [name for name in shares if shares[name] < room[name]]
        scale = sum(importance[name] for name in open_)
        given = 0
        for name in sorted(open_, key=lambda name: -importance[name]):
            wanted = math.ceil(left * importance[name] / scale) if scale else math.ceil(left / len(open_))
            take = min(wanted, room[name] - shares[name], left - given)
            shares[name] += take
            given += take
        left -= given
    return shares


def swapped(layer: MaskedLayer, drop: int, grow: int) -> Tensor:
    """A mask without the ``drop`` active weights of smallest magnitude, with the ``grow`` of largest gradient."""
    magnitude = layer.theta.abs().masked_fill(~layer.mask, torch.inf)
    growth = layer.gradient.masked_fill(layer.mask, -torch.inf)
    mask = layer.mask.flatten().clone()
    mask[magnitude.flatten().topk(drop, largest=False).indices] = False
    mask[growth.flatten().topk(grow).indices] = True
    return mask.view(layer.mask.shape)


class MaskUpdater:
    """Keeps masked weights at zero and moves the masks; holds each weight's running mean of |gradient|."""

    def __init__(self, weights: dict[str, ConditionedWeight], move: Move = swap_within_layers) -> None:
        self.weights = weights
        self.move = move
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
        """Swap ``fraction`` of the active weights; new weights start at 0, dropped ones lose their momentum.

        Returns:
            The number of weights swapped.
        """
        layers = {
            name: MaskedLayer(weight.theta, weight.mask, self.gradient[name]) for name, weight in self.weights.items()
        }
        grown = 0
        for name, mask in self.move(layers, fraction).items():
            weight = self.weights[name]
            grown += int((mask & ~weight.mask).sum())
            weight.set_mask(mask)
            forget(optimizer, weight.theta, weight.mask)
        return grown
