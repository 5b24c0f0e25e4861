"""The layers that fold: those that the condition puts in place of a network's own, and the network's own.

Each tells its two ends, which ``fold.py`` turns into plain weights, and the ordinary layer that these go into.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, linear

from floats_edge.method.batchnorm import DualNorm, gain_and_bias
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.fold import Ends
from floats_edge.method.knob import Knob
from floats_edge.method.plan import Norm, Weighted


class Foldable(Protocol):
    """One layer of a network that folds into an ordinary one."""

    def ends(self) -> Ends:
        """The layer at lambda 0 and 1, its BatchNorms in inference mode: tensors on its device."""
        ...

    def plain(self) -> dict[nn.Module, nn.Module]:
        """What takes the place of which module when it is folded; parameters are yet to be set and need no gradient."""
        ...


Layers = Mapping[str, Foldable]
"""By the names of their convolutions, linear layers and lone BatchNorms."""


class ConditionedLayer(nn.Module):
    """A convolution or linear layer under the condition, with the dual BatchNorm that follows it, if one does.

    Args:
        layer: whose weight becomes theta.
        norm: BatchNorm after it; None: there is none.
        alpha: first value of alpha.
        knob: tells lambda.
    """

    def __init__(self, layer: Weighted, norm: Norm | None, alpha: float, knob: Knob) -> None:
        super().__init__()
        self.weight = ConditionedWeight(cast(nn.Parameter, layer.weight), alpha)
        self.bias = layer.bias
        self.operation = copy.deepcopy(layer, {id(layer.weight): None, id(layer.bias): None})
        """The layer without its parameters."""
        self.norm = None if norm is None else DualNorm(norm)
        self.knob = knob

    def forward(self, x: Tensor) -> Tensor:
        lam = self.knob.lam
        y = _computed(self.operation, x, self.weight(lam), self.bias)
        return y if self.norm is None else self.norm(y, lam)

    def ends(self) -> Ends:
        weight = self.weight
        theta, noise = weight.theta.detach(), weight.mask * weight.eta
        clean, adv = (None, None) if self.norm is None else (self.norm.clean, self.norm.adv)
        gain_clean, bias_clean = _folded_bias(theta, self.bias, clean)
        gain_adv, bias_adv = _folded_bias(theta, self.bias, adv)
        scale = weight.alpha.detach() * weight.sigma()
        return Ends(theta, weight.mask, noise, scale, gain_clean, gain_adv, bias_clean, bias_adv)

    def plain(self) -> dict[nn.Module, nn.Module]:
        return {self: _like(self.operation, self.weight.theta)}


class ConditionedNorm(nn.Module):
    """A dual BatchNorm that follows no convolution alone: it folds into a scale and a shift per channel.

    Args:
        norm: BatchNorm of the network.
        knob: tells lambda.
    """

    def __init__(self, norm: Norm, knob: Knob) -> None:
        super().__init__()
        self.norm = DualNorm(norm)
        self.knob = knob

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self.knob.lam)

    def ends(self) -> Ends:
        return _scaling(self.norm.clean, self.norm.adv)

    def plain(self) -> dict[nn.Module, nn.Module]:
        return {self: _like(Scale(), gain_and_bias(self.norm.adv)[0])}


Conditioned = ConditionedLayer | ConditionedNorm


@dataclass(frozen=True)
class OrdinaryLayer:
    """A layer that no condition reaches: both ends are the same, so that every lambda gives the same weights.

    Attributes:
        layer: convolution or linear layer; None: a lone BatchNorm.
        norm: BatchNorm after it, if one follows.
        modules: those of the network that it is, in the order of their calls, each with what it does after that.
    """

    layer: Weighted | None
    norm: Norm | None
    modules: tuple[tuple[nn.Module, nn.Module | None], ...]

    def ends(self) -> Ends:
        if self.layer is None:
            assert self.norm is not None, "a layer is one or the other"
            return _scaling(self.norm, self.norm)
        theta = self.layer.weight.detach()
        gain, bias = _folded_bias(theta, self.layer.bias, self.norm)
        nothing = torch.zeros_like(theta)
        return Ends(theta, nothing == 0, nothing, theta.new_zeros(()), gain, gain, bias, bias)

    def plain(self) -> dict[nn.Module, nn.Module]:
        if self.layer is not None:
            plain = _like(self.layer, self.layer.weight)
        else:
            assert self.norm is not None, "a layer is one or the other"
            plain = _like(Scale(), gain_and_bias(self.norm)[0])
        (first, after), *others = self.modules
        rest = {module: nn.Identity() if rest is None else rest for module, rest in others}
        return {first: plain if after is None else nn.Sequential(plain, after), **rest}


class Scale(nn.Module):
    """Scale and shift per channel: what is left of a BatchNorm that follows no convolution alone.

    A product and a sum, not BatchNormalization: that TensorRT cannot refit, as its parser renames the weights. Under
    mixed precision they are computed in float32 and rounded to the precision of ``x``, as BatchNorm does.
    """

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        return (x * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


def _computed(operation: Weighted, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``operation`` computes with other parameters."""
    if isinstance(operation, nn.Linear):
        return linear(x, weight, bias)
    if torch.is_grad_enabled() and operation.kernel_size == (1, 1) and operation.padding == (0, 0):
        return pointwise(x, weight, bias, operation)
    return operation._conv_forward(x, weight, bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d) -> Tensor:
    """What a 1x1 convolution without padding computes with other parameters, for when gradients are computed.

    It subsamples first: the same function, without the weight gradient that oneDNN gets wrong, or crashes in, for few
    channels stored channels last (its issue 6035). A mean over one pixel subsamples, as its gradient stays channels
    last: that of a slice does not, and slows down whatever it is added to.
    """
    if layer.stride != (1, 1):
        x = avg_pool2d(x, 1, (layer.stride[0], layer.stride[1]))
    return conv2d(x, weight, bias, groups=layer.groups)


def _folded_bias(theta: Tensor, bias: Tensor | None, norm: Norm | None) -> tuple[Tensor, Tensor]:
    """Per-channel ``(gain, bias)`` of a layer whose own bias and BatchNorm may be missing."""
    own = theta.new_zeros(len(theta)) if bias is None else bias.detach()
    if norm is None:
        return torch.ones_like(own), own
    gain, shift = gain_and_bias(norm)
    return gain, shift if bias is None else shift + own * gain


def _scaling(clean: Norm, adv: Norm) -> Ends:
    """The ends of a lone BatchNorm: theta is one for each channel."""
    (gain_clean, bias_clean), (gain_adv, bias_adv) = gain_and_bias(clean), gain_and_bias(adv)
    one = torch.ones_like(gain_clean)
    return Ends(one, one > 0, one * 0, one.new_zeros(()), gain_clean, gain_adv, bias_clean, bias_adv)


def _like(layer: nn.Module, weight: Tensor) -> nn.Module:
    """A copy of ``layer`` with a weight like ``weight`` and a bias."""
    plain = copy.deepcopy(layer, {id(parameter): None for parameter in layer.parameters()})
    plain.weight = nn.Parameter(torch.empty_like(weight), requires_grad=False)
    plain.bias = nn.Parameter(weight.new_empty(len(weight)), requires_grad=False)
    return plain
