"""FLOATS, channel: whole channels, cut once while the network trains, so that it can be exported as a narrower one.

The network is dense for the first fifth of training. Then, of every group of channels that can only go together, those
of largest importance are kept. A cut channel is zero at every lambda: its weights, the weights that read it and the
scale and shift of both its BatchNorms are masked, and nothing can make it grow again. For its use in FLOATS see
README.md.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from floats_edge.method.batchnorm import DualNorm
from floats_edge.method.channel_groups import STAYS, ChannelGroups, LayerChannels
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.layers import Conditioned, ConditionedLayer, ConditionedNorm
from floats_edge.method.masks import forget

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
    """The masks of a network that is dense until :meth:`cut`; keeps what they exclude at zero from then on.

    Args:
        layers: of the network, conditioned.
        channels: of the network.
        counts: how many of each group are kept, in their order.
    """

    def __init__(self, layers: Mapping[str, Conditioned], channels: ChannelGroups, counts: Sequence[int]) -> None:
        self.layers = layers
        self.channels = channels
        self.counts = tuple(counts)
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
        kept, scores = np.ones(self.channels.count + 1, dtype=bool), self.importance()
        for group, count in zip(self.channels.groups, self.counts, strict=True):
            kept[group.classes] = strongest(scores[group.classes], count).cpu().numpy()
        for name, weight in self._weights().items():
            mask = weight.mask.cpu().numpy().copy()
            for axis, channels in enumerate(sides(self.channels.layers[name], kept)):
                mask.swapaxes(0, axis)[~channels] = False
            weight.set_mask(torch.from_numpy(mask))
        for parameter, mask in self._masked():
            parameter.mul_(mask)
            forget(optimizer, parameter, mask)

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

    def _masked(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Every parameter that is masked, with its mask: those of a BatchNorm, and biases, follow the channels."""
        weights = self._weights()
        masked = [(weight.theta, weight.mask) for weight in weights.values()]
        kept = unmasked(self.channels, {name: weight.mask.cpu().numpy() for name, weight in weights.items()})
        for name, layer in self.layers.items():
            channels = torch.from_numpy(kept[self.channels.layers[name].outputs])
            parameters = [
                parameter for parameter in layer.parameters() if parameter.ndim == 1
            ]  # biases, and those of BatchNorm
            masked += [(parameter, channels.to(parameter.device)) for parameter in parameters]
        return masked


def _gammas(norm: DualNorm) -> list[Tensor]:
    return [end.weight for end in (norm.clean, norm.adv) if end.affine]
