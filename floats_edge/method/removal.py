"""Channels removed from a network while it trains: it computes the same, narrower and so faster.

What is stored keeps the full width: :class:`Kept` puts the tensors of the narrower network back into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from floats_edge.method.layers import Conditioned, ConditionedLayer
from floats_edge.method.plan import Norm

Channels = NDArray[np.bool_]
Sides = Sequence[Channels]
"""What of one layer is kept: of its output channels and, unless these are its input channels, of its input channels.

These are the first axes of each of its tensors: of a vector the output channels, of a weight both.
"""


@dataclass(frozen=True, eq=False)
class Kept:
    """What is left of the tensors of a network.

    Attributes:
        sides: by name of tensor; any other tensor is whole.
    """

    sides: Mapping[str, Sides]

    def widened(self, name: str, tensor: NDArray[Any]) -> NDArray[Any]:
        """A tensor at full width, zero where channels were removed; ``name`` is its own or that of its parameter."""
        sides = self.sides.get(name, ())[: tensor.ndim]
        if not sides:
            return tensor
        whole = np.zeros((*map(len, sides), *tensor.shape[len(sides) :]), tensor.dtype)
        whole[np.ix_(*sides)] = tensor
        return whole


def remove(layers: Mapping[str, Conditioned], sides: Mapping[str, Sides], optimizer: torch.optim.Optimizer) -> Kept:
    """Remove channels of the layers of a network, in place, and what an optimiser remembers of them.

    Args:
        layers: conditioned, at full width.
        sides: what is kept, by layer.
        optimizer: of their parameters, which are replaced by narrower ones.
    """
    weights = {name: layer.weight for name, layer in layers.items() if isinstance(layer, ConditionedLayer)}
    drawn = {weight: _without(weight.mask, sides[name]) for name, weight in weights.items()}
    kept: dict[str, Sides] = {}
    for name, layer in layers.items():
        for place, module in layer.named_modules(prefix=name):
            resize(module, *sides[name])
            tensors = {**module._parameters, **module._buffers}
            for key, tensor in tensors.items():
                if tensor is not None and tensor.ndim > 0:
                    kept[f"{place}.{key}"] = sides[name]
                    setattr(module, key, _replaced(tensor, sides[name], optimizer))
    for weight, mask in drawn.items():
        weight.draw_for(mask)
    return Kept(kept)


def resize(layer: nn.Module, outputs: Channels, inputs: Channels | None = None) -> None:
    """Set the numbers of channels that a layer of ``torch.nn`` knows to those that are kept."""
    left = int(outputs.sum())
    if isinstance(layer, nn.Linear):
        assert inputs is not None, "a linear layer mixes its inputs"
        layer.in_features, layer.out_features = int(inputs.sum()), left
    elif isinstance(layer, nn.Conv2d):
        if inputs is not None:
            layer.in_channels = int(inputs.sum())
        elif layer.groups == layer.in_channels:
            layer.in_channels = layer.groups = left * layer.groups // layer.out_channels
        layer.out_channels = left
    elif isinstance(layer, Norm):
        layer.num_features = left


def _without(mask: Tensor, sides: Sides) -> Tensor:
    """A mask of a layer at full width that excludes the channels that are not kept, too."""
    mask = mask.clone()
    for axis, kept in enumerate(sides):
        mask.index_fill_(axis, torch.from_numpy(np.flatnonzero(~kept)).to(mask.device), 0)
    return mask


def _replaced(tensor: Tensor, sides: Sides, optimizer: torch.optim.Optimizer) -> Tensor:
    """A narrower tensor; where it is a parameter, ``optimizer`` goes on with it."""
    left = _left(tensor.detach(), sides)
    if not isinstance(tensor, nn.Parameter):
        return left
    parameter = nn.Parameter(left, requires_grad=tensor.requires_grad)
    for group in optimizer.param_groups:
        group["params"] = [parameter if other is tensor else other for other in group["params"]]
    for entry, remembered in optimizer.state.pop(tensor, {}).items():
        whole = isinstance(remembered, Tensor) and remembered.shape == tensor.shape
        optimizer.state[parameter][entry] = _left(remembered, sides) if whole else remembered
    return parameter


def _left(tensor: Tensor, sides: Sides) -> Tensor:
    """The entries that are kept; weights of convolutions stay channels last."""
    for axis, kept in enumerate(sides[: tensor.ndim]):
        tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(kept)).to(tensor.device))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
