"""The layers that fold: those that the condition puts in place of a network's own, and the network's own.

Each tells what it was trained to, which ``stack.py`` gathers and ``fold.py`` turns into plain weights, and the ordinary
layer that these go into.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, linear

from floats_edge.method.batchnorm import DualNorm
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.knob import Knob
from floats_edge.method.plan import Norm, Weighted


@dataclass(frozen=True)
class Trained:
    """What a layer was trained to; None: it has no such thing.

    Attributes:
        theta: weight, ``[out, ...]``.
        condition: that the weight is under.
        bias: of its own, ``[out]``.
        clean: BatchNorm at lambda 0.
        adv: BatchNorm at lambda 1; both are there or none.
    """

    theta: Tensor | None
    condition: ConditionedWeight | None
    bias: Tensor | None
    clean: Norm | None
    adv: Norm | None

    @property
    def rows(self) -> Tensor:
        """A tensor with a row for each output channel."""
        if self.theta is not None:
            return self.theta
        assert self.clean is not None, "a layer without a weight is a BatchNorm"
        assert self.clean.running_var is not None, "a plan takes no BatchNorm without running statistics"
        return self.clean.running_var


class Foldable(Protocol):
    """One layer of a network that folds into an ordinary one."""

    def trained(self) -> Trained:
        """What it was trained to: its own parameters, no copies."""
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

    def trained(self) -> Trained:
        clean, adv = (None, None) if self.norm is None else (self.norm.clean, self.norm.adv)
        return Trained(self.weight.theta, self.weight, self.bias, clean, adv)

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

    def trained(self) -> Trained:
        return Trained(None, None, None, self.norm.clean, self.norm.adv)

    def plain(self) -> dict[nn.Module, nn.Module]:
        return {self: _like(Scale(), self.trained().rows)}


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

    def trained(self) -> Trained:
        theta, bias = (None, None) if self.layer is None else (self.layer.weight, self.layer.bias)
        return Trained(theta, None, bias, self.norm, self.norm)

    def plain(self) -> dict[nn.Module, nn.Module]:
        plain = _like(self.layer or Scale(), self.trained().rows)
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


def _like(layer: nn.Module, weight: Tensor) -> nn.Module:
    """A copy of ``layer`` with a weight like ``weight`` and a bias."""
    plain = copy.deepcopy(layer, {id(parameter): None for parameter in layer.parameters()})
    plain.weight = nn.Parameter(torch.empty_like(weight), requires_grad=False)
    plain.bias = nn.Parameter(weight.new_empty(len(weight)), requires_grad=False)
    return plain
