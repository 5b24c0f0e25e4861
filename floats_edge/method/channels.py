"""FLOATS, channel: whole channels, cut once while the network trains, which is a narrower one from then on.

The network is dense for the first fifth of training. Then, of every group of channels that can only go together, those
of largest importance are kept. The others are removed: their weights, the weights that read them, and what both their
BatchNorms have of them. A checkpoint keeps the full width, in which all of these are zero, and masks that say what is
left. For its use in FLOATS see README.md.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from floats_edge.method.batchnorm import DualNorm
from floats_edge.method.channel_groups import STAYS, ChannelGroups, LayerChannels
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.layers import Conditioned, ConditionedLayer, ConditionedNorm
from floats_edge.method.removal import Kept, remove

DENSE_SHARE = 0.2
"""Share of training before the cut."""


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


def sides(channels: LayerChannels, kept: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """What of one layer is kept: of its output channels and, unless these are its input channels, of those.

    Args:
        channels: of the layer.
        kept: the classes that are kept, and at the end a True for the channels that stay: bool ``[count + 1]``.
    """
    return [kept[classes] for classes in (channels.outputs, channels.inputs) if classes is not None]


def unmasked(channels: ChannelGroups, masks: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Which classes some weight writes, from the masks of the weights: bool ``[count + 1]``, as :func:`sides` wants."""
    kept = np.zeros(channels.count + 1, dtype=bool)
    kept[STAYS] = True
    for name, mask in masks.items():
        written = channels.layers[name].outputs[mask.reshape(len(mask), -1).any(axis=1)]
        kept[written] = True
    return kept


class ChannelMasks:
    """The masks of a network that is dense until :meth:`cut`, which removes from it what they exclude.

    Args:
        layers: of the network, conditioned.
        channels: of the network.
        counts: how many of each group are kept, in their order.
    """

    def __init__(self, layers: Mapping[str, Conditioned], channels: ChannelGroups, counts: Sequence[int]) -> None:
        self.layers = layers
        self.channels = channels
        self.counts = tuple(counts)
        self.kept = Kept({})

    @torch.no_grad()
    def cut(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the strongest channels of every group; what is cut loses its weights and its momentum."""
        kept, scores = np.ones(self.channels.count + 1, dtype=bool), self.importance()
        for group, count in zip(self.channels.groups, self.counts, strict=True):
            kept[group.classes] = strongest(scores[group.classes], count).cpu().numpy()
        self._remove(kept, optimizer)

    def cut_as_masked(self, optimizer: torch.optim.Optimizer) -> bool:
        """Remove the channels that the masks of a stored network exclude; returns whether there were any."""
        kept = unmasked(self.channels, {name: weight.mask.cpu().numpy() for name, weight in self._weights().items()})
        if kept.all():
            return False
        self._remove(kept, optimizer)
        return True

    def _remove(self, kept: NDArray[np.bool_], optimizer: torch.optim.Optimizer) -> None:
        left = {name: sides(self.channels.layers[name], kept) for name in self.layers}
        self.kept = remove(self.layers, left, optimizer)

    def importance(self) -> Tensor:
        """Of each class, summed over the layers that write it: ``[count]``.

        A layer counts with its own BatchNorm's gammas and those of the BatchNorms that read the channels alone; where
        there are none, with its weights.
        """
        device = next(iter(self._weights().values())).theta.device
        lone = torch.zeros(self.channels.count, device=device)
        for name, layer in self.layers.items():
            if isinstance(layer, ConditionedNorm):
                self._add(lone, name, torch.stack(_gammas(layer.norm)).abs().sum(dim=0))
        scores = torch.zeros_like(lone)
        for name, layer in self.layers.items():
            if isinstance(layer, ConditionedLayer):
                read = torch.cat((lone, lone.new_zeros(1)))[self.channels.layers[name].outputs]
                gammas = [*(_gammas(layer.norm) if layer.norm is not None else ()), *([read] if read.any() else [])]
                self._add(scores, name, importance(layer.weight.theta, *(gammas or [torch.ones_like(read)])))
        return scores

    def _add(self, scores: Tensor, layer: str, values: Tensor) -> None:
        """Add a value of each output channel of a layer to its class, if that may go."""
        classes = torch.from_numpy(self.channels.layers[layer].outputs).to(scores.device)
        scores.index_add_(0, classes[classes != STAYS], values[classes != STAYS])

    def _weights(self) -> dict[str, ConditionedWeight]:
        return {name: layer.weight for name, layer in self.layers.items() if isinstance(layer, ConditionedLayer)}


def _gammas(norm: DualNorm) -> list[Tensor]:
    return [end.weight for end in (norm.clean, norm.adv) if end.affine]
