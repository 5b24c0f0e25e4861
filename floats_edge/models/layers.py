"""The layer kinds a backbone is built from; every layer is called as ``layer(x, lam)``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from floats_edge.method.conditioning import FloatConv, FloatLinear
from floats_edge.method.film import FilmConv
from floats_edge.method.plain import PlainConv, PlainLinear


@dataclass(frozen=True)
class Layers:
    """A layer factory: ``conv(in, out, kernel, stride)`` includes its normalisation, ``linear(in, out)`` does not."""

    conv: Callable[[int, int, int, int], nn.Module]
    linear: Callable[[int, int], nn.Module]


class FoldedConv(nn.Module):
    """Plain convolution with bias, into which BatchNorm and the condition have been folded."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, kernel_size, kernel_size), requires_grad=False
        )
        self.bias = nn.Parameter(torch.empty(out_channels), requires_grad=False)
        self.stride = stride
        self.padding = kernel_size // 2

    def forward(self, x: Tensor, lam: float) -> Tensor:
        del lam  # already in the weights
        return conv2d(x, self.weight, self.bias, self.stride, self.padding)


class FoldedLinear(nn.Module):
    """Plain linear layer into which the condition has been folded."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        del lam  # already in the weights
        return linear(x, self.weight, self.bias)


FLOAT = Layers(FloatConv, FloatLinear)
FOLDED = Layers(FoldedConv, FoldedLinear)
PLAIN = Layers(PlainConv, PlainLinear)


def film(batchnorm: str, dimensions: int) -> Layers:
    """OAT's layers, called with an :class:`~floats_edge.method.film.EncodedLambda`; the classifier is unconditioned."""
    return Layers(partial(FilmConv, batchnorm, dimensions), PlainLinear)
