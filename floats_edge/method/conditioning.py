"""Layers whose weights depend on lambda: ``W(lam) = m * (theta + lam * alpha * sigma * eta)``.

Source: FLOAT, Kundu et al., arXiv 2204.00426; parametrised noise (``alpha`` trained, ``sigma`` the standard deviation
of the weights) goes back to parametric noise injection, He et al., CVPR 2019.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from floats_edge.method.batchnorm import DualBatchNorm2d
from floats_edge.method.convolution import convolve
from floats_edge.method.noise import standard_normal

INITIAL_ALPHA = 0.25


class ConditionedWeight(nn.Module):
    """One weight tensor under the condition: theta, alpha (trained), mask and frozen noise eta.

    Invariant: theta is zero outside ``mask`` (training keeps it so). Only the noise is multiplied by the mask in the
    forward pass, hence ``theta.grad`` is the *dense* gradient that FLOATS regrows weights by.

    Args:
        theta: the weight at lambda 0.
        alpha: first value of alpha.
    """

    mask: Tensor
    eta: Tensor

    def __init__(self, theta: nn.Parameter, alpha: float = INITIAL_ALPHA) -> None:
        super().__init__()
        self.theta = theta
        self.alpha = nn.Parameter(theta.new_tensor(alpha))
        self.register_buffer("mask", torch.ones_like(theta, dtype=torch.bool))
        self.register_buffer("eta", torch.zeros_like(theta, requires_grad=False), persistent=False)

    def draw_noise(self, seed: int, layer_index: int) -> None:
        """Set ``eta`` to the frozen draw of this layer."""
        self.eta.copy_(torch.from_numpy(standard_normal(seed, layer_index, tuple(self.theta.shape))))

    @torch.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """Adopt ``mask`` (bool, shape of theta) and clear the weights outside it."""
        self.mask.copy_(mask)
        self.theta.mul_(self.mask)

    def sigma(self) -> Tensor:
        """Standard deviation of theta over its unmasked entries, detached: a float32 scalar.

        The mean is found first, for the difference of two large squares would lose a small deviation.
        """
        theta = self.theta.detach()
        count = self.mask.sum()
        deviation = self.mask * (theta - theta.sum() / count)
        return (deviation.square().sum() / count).sqrt()

    def forward(self, lam: float) -> Tensor:
        """``W(lam)``, differentiable in theta and alpha."""
        if lam == 0:
            return self.theta
        return self.theta + (lam * self.alpha * self.sigma()) * (self.mask * self.eta)


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


class FloatConv(nn.Module):
    """Conditioned convolution and its dual BatchNorm: the unit that folds into one plain convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = ConditionedWeight(_weight(out_channels, in_channels, kernel_size, kernel_size))
        self.norm = DualBatchNorm2d(out_channels)
        self.stride = stride
        nn.init.kaiming_normal_(self.weight.theta, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return self.norm(convolve(x, self.weight(lam), self.stride), lam)


class FloatBareConv(nn.Module):
    """Conditioned convolution that no BatchNorm follows; it has no bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = ConditionedWeight(_weight(out_channels, in_channels, kernel_size, kernel_size))
        self.stride = stride
        nn.init.kaiming_normal_(self.weight.theta, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return convolve(x, self.weight(lam), self.stride)


class FloatNorm(nn.Module):
    """Dual BatchNorm that no convolution precedes: it folds into a scale and a shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = DualBatchNorm2d(channels)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return self.norm(x, lam)


class FloatLinear(nn.Module):
    """Conditioned linear layer with an unconditioned bias. ``[N, in]`` to ``[N, out]``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = ConditionedWeight(_weight(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.kaiming_uniform_(self.weight.theta, a=math.sqrt(5))

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return linear(x, self.weight(lam), self.bias)


FloatLayer = FloatConv | FloatBareConv | FloatNorm | FloatLinear


def float_layers(network: nn.Module) -> dict[str, FloatLayer]:
    """The layers of a FLOAT network by name, in definition order: a layer's position is the index of its noise.

    A network folds into as many layers in the same order, which is that of a bundle's manifest.
    """
    return {name: module for name, module in network.named_modules() if isinstance(module, FloatLayer)}


def conditioned_weights(network: nn.Module) -> dict[str, ConditionedWeight]:
    """The conditioned weights of a network by layer name: what noise and masks apply to, no BatchNorm."""
    return {
        name.removesuffix(".weight"): module
        for name, module in network.named_modules()
        if isinstance(module, ConditionedWeight)
    }


def draw_noise(network: nn.Module, seed: int) -> None:
    """Give every conditioned weight its frozen noise."""
    for index, layer in enumerate(float_layers(network).values()):
        if not isinstance(layer, FloatNorm):
            layer.weight.draw_noise(seed, index)


def resample_noise(network: nn.Module, generator: torch.Generator) -> None:
    """Give every conditioned weight fresh noise from ``generator``, which is on its device."""
    for weight in conditioned_weights(network).values():
        weight.eta.normal_(generator=generator)


@torch.no_grad()
def fix_alpha(network: nn.Module, alpha: float) -> None:
    """Set every alpha, and train none of them."""
    for weight in conditioned_weights(network).values():
        weight.alpha.fill_(alpha).requires_grad_(False)
