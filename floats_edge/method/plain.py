"""Layers that no condition reaches: the network of standard and of PGD adversarial training."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from floats_edge.method.convolution import convolve


class PlainConv(nn.Module):
    """Convolution and one BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.norm = nn.BatchNorm2d(out_channels)
        self.stride = stride
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, lam: object) -> Tensor:
        del lam  # unconditioned
        return self.norm(convolve(x, self.weight, self.stride))


class PlainBareConv(nn.Module):
    """Convolution that no BatchNorm follows; it has no bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.stride = stride
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, lam: object) -> Tensor:
        del lam  # unconditioned
        return convolve(x, self.weight, self.stride)


class PlainNorm(nn.Module):
    """One BatchNorm that no convolution precedes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, lam: object) -> Tensor:
        del lam  # unconditioned
        return self.norm(x)


class PlainLinear(nn.Module):
    """Linear layer. ``[N, in]`` to ``[N, out]``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, lam: object) -> Tensor:
        del lam  # unconditioned
        return linear(x, self.weight, self.bias)
