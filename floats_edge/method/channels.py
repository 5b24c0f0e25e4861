"""FLOATS, channel: whole channels, cut once while the network trains, so that it can be exported as a narrower one.

The network is dense for the first fifth of training. Then, of every group of channels that can only go together, those
of largest importance are kept. A cut channel is zero at every lambda: its weights, the weights that read it and the
scale and shift of both its BatchNorms are masked, and nothing can make it grow again. For its use in FLOATS see
README.md.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from floats_edge.method.conditioning import FloatConv, FloatNorm, conditioned_weights

DENSE_SHARE = 0.2
"""Share of training before the cut."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that several layers share, and that can only be removed from all of them.

    Attributes:
        name: for people.
        size: how many channels.
        writers: convolutions whose output channels they are; the outputs of several are added.
        readers: layers whose input channels they are.
        norms: normalisations of what the writers write, apart from those that are part of them.
    """

    name: str
    size: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    norms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChannelGroups:
    """All groups of a residual network: of the stream, stage by stage, and inside the blocks, block by block."""

    streams: tuple[ChannelGroup, ...]
    inner: tuple[ChannelGroup, ...]

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter((*self.streams, *self.inner))


def kept_count(size: int, density: float, multiple: int) -> int:
    """How many of ``size`` channels are kept: the share ``density``, rounded up to a multiple, at most all."""
    return min(size, multiple * math.ceil(round(size * density / multiple, 9)))


def importance(weight: Tensor, *gammas: Tensor) -> Tensor:
    """Of each output channel of a convolution ``[out, in, k, k]``: its norm times the sum of |gamma|, ``[out]``."""
    return weight.flatten(1).norm(dim=1) * torch.stack(gammas).abs().sum(dim=0)


def strongest(scores: Tensor, count: int) -> Tensor:
    """A bool mask of the ``count`` channels of largest score; of equal ones the first."""
    kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    kept[scores.argsort(descending=True, stable=True)[:count]] = True
    return kept


def axes(groups: ChannelGroups, kept: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of each layer is kept: of its output and of its input channels, by name of the layer.

    Args:
        groups: of the network.
        kept: by name of the group a bool array or tensor, ``[size]``.

    Returns:
        ``(outputs, inputs)``; a layer that no group writes to, or reads from, is missing there: all is kept.
    """
    outputs = {layer: kept[group.name] for group in groups for layer in (*group.writers, *group.norms)}
    inputs = {layer: kept[group.name] for group in groups for layer in group.readers}
    return outputs, inputs


def unmasked(group: ChannelGroup, masks: Mapping[str, Any]) -> Any:
    """Which channels of a group some weight writes, from the layers' masks: bool ``[size]``, of the masks' kind."""
    first, *others = (masks[layer].reshape(group.size, -1).any(1) for layer in group.writers)
    for other in others:
        first = first | other
    return first


class ChannelMasks:
    """The masks of a network that is dense until :meth:`cut`; keeps what they exclude at zero from then on.

    Args:
        network: of conditioned layers.
        groups: its channels.
        counts: how many of each group are kept, by its name.
    """

    def __init__(self, network: nn.Module, groups: ChannelGroups, counts: Mapping[str, int]) -> None:
        self.groups = groups
        self.counts = counts
        self.weights = conditioned_weights(network)
        self.norms = {
            name: unit.norm for name, unit in network.named_modules() if isinstance(unit, FloatConv | FloatNorm)
        }
        self.gradient: dict[str, Tensor] = {}
        """Nothing is to be remembered: what is cut does not grow again."""

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """After backward, before the optimiser step: hide what the masks exclude."""
        for parameter, mask in self._masked():
            assert parameter.grad is not None, "every masked parameter takes part in a step"
            parameter.grad.mul_(mask)

    @torch.no_grad()
    def cut(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the strongest channels of every group; what is cut loses its weights and its momentum."""
        kept = {group.name: strongest(self.importance(group), self.counts[group.name]) for group in self.groups}
        outputs, inputs = axes(self.groups, kept)
        for name, weight in self.weights.items():
            mask = weight.mask.clone()
            if name in outputs:
                mask[~outputs[name]] = False
            if name in inputs:
                mask[:, ~inputs[name]] = False
            weight.set_mask(mask)
        for parameter, mask in self._masked():
            parameter.mul_(mask)
            momentum = optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                momentum.mul_(mask)

    def importance(self, group: ChannelGroup) -> Tensor:
        """Of each channel, summed over the convolutions that write it: ``[size]``."""
        scores = []
        for writer in group.writers:
            norms = [self.norms[name] for name in (writer, *group.norms) if name in self.norms]
            gammas = [gamma for norm in norms for gamma in (norm.clean.weight, norm.adv.weight)]
            scores.append(importance(self.weights[writer].theta, *gammas))
        return torch.stack(scores).sum(dim=0)

    def _masked(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Every parameter that is masked, with its mask: a BatchNorm's follow the channels that are written for it."""
        masked = [(weight.theta, weight.mask) for weight in self.weights.values()]
        masks = {name: weight.mask for name, weight in self.weights.items()}
        for group in self.groups:
            channels = unmasked(group, masks)
            norms = [self.norms[name] for name in (*group.writers, *group.norms) if name in self.norms]
            masked += [
                (p, channels) for norm in norms for end in (norm.clean, norm.adv) for p in (end.weight, end.bias)
            ]
        return masked
