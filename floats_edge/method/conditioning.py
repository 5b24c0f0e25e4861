"""Layers whose weights depend on lambda: ``W(lam) = m * (theta + lam * alpha * sigma * eta)``.

Source: FLOAT, Kundu et al., arXiv 2204.00426; the parametrised noise (``alpha`` trained, ``sigma`` the standard deviation of
the weights) goes back to parametric noise injection, He et al., CVPR 2019.
"""

import torch
from torch import Tensor, nn

from floats_edge.method.batchnorm import DualBatchNorm2d
from floats_edge.method.noise import standard_normal

INITIAL_ALPHA = 0.25


class _Conditioned(nn.Module):
    """What a conditioned convolution and a conditioned linear layer share.

    ``weight`` is theta. Invariant: it is zero outside ``mask`` (the trainer keeps it so). Only the noise is multiplied by
    the mask in the forward pass, hence ``weight.grad`` is the *dense* gradient that FLOATS regrows weights by.
    """

    weight: nn.Parameter
    mask: Tensor
    eta: Tensor

    def _condition(self) -> None:
        self.alpha = nn.Parameter(torch.tensor(INITIAL_ALPHA))
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))
        self.register_buffer("eta", torch.zeros_like(self.weight), persistent=False)

    def draw_noise(self, seed: int, layer_index: int) -> None:
        """Set ``eta`` to the frozen draw of this layer."""
        self.eta.copy_(torch.from_numpy(standard_normal(seed, layer_index, tuple(self.weight.shape))))

    @torch.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """Adopt ``mask`` (bool, shape of the weight) and clear the weights outside it."""
        self.mask.copy_(mask)
        self.weight.mul_(self.mask)

    def sigma(self) -> Tensor:
        """Standard deviation of theta over its unmasked entries, detached: a float32 scalar."""
        theta = self.weight.detach()
        count = self.mask.sum()
        mean = theta.sum() / count
        return (theta.square().sum() / count - mean.square()).clamp_min(0).sqrt()

    def conditioned_weight(self, lam: float) -> Tensor:
        """``W(lam)``, differentiable in theta and alpha; same shape as the weight."""
        if lam == 0:
            return self.weight
        return self.weight + (lam * self.alpha * self.sigma()) * (self.mask * self.eta)


class ConditionedConv2d(nn.Conv2d, _Conditioned):
    """Bias-free convolution with weight ``W(lam)``. ``[N, in, H, W]`` to ``[N, out, H', W']``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self._condition()

    def forward(self, input: Tensor, lam: float) -> Tensor:
        return self._conv_forward(input, self.conditioned_weight(lam), None)


class ConditionedLinear(nn.Linear, _Conditioned):
    """Linear layer with weight ``W(lam)`` and an unconditioned bias. ``[N, in]`` to ``[N, out]``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self._condition()

    def forward(self, input: Tensor, lam: float) -> Tensor:
        return nn.functional.linear(input, self.conditioned_weight(lam), self.bias)


class FloatConv(nn.Module):
    """A conditioned convolution and its dual BatchNorm: the unit that folds into one plain convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = ConditionedConv2d(in_channels, out_channels, kernel_size, stride)
        self.norm = DualBatchNorm2d(out_channels)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return self.norm(self.conv(x, lam), lam)


ConditionedLayer = ConditionedConv2d | ConditionedLinear


def conditioned_layers(network: nn.Module) -> dict[str, ConditionedLayer]:
    """The conditioned layers of a network by name, in definition order; their position is the noise's layer index."""
    return {name: module for name, module in network.named_modules() if isinstance(module, ConditionedLayer)}


def draw_noise(network: nn.Module, seed: int) -> None:
    """Give every conditioned layer its frozen noise."""
    for index, layer in enumerate(conditioned_layers(network).values()):
        layer.draw_noise(seed, index)
