"""The layer kinds a backbone is built from; every layer is called as ``layer(x, lam)``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from floats_edge.method.conditioning import FloatBareConv, FloatConv, FloatLinear, FloatNorm
from floats_edge.method.film import FilmConv, FilmNorm, OatNorm
from floats_edge.method.plain import PlainBareConv, PlainConv, PlainLinear, PlainNorm


@dataclass(frozen=True)
class Layers:
    """A layer factory.

    Attributes:
        conv: ``(in, out, kernel, stride)``, with the normalisation after it.
        bare_conv: the same without.
        norm: ``(channels)``, a normalisation that no convolution precedes.
        last_norm: the same before the classifier.
        linear: ``(in, out)``, with bias.
    """

    conv: Callable[[int, int, int, int], nn.Module]
    bare_conv: Callable[[int, int, int, int], nn.Module]
    norm: Callable[[int], nn.Module]
    last_norm: Callable[[int], nn.Module]
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


class FoldedNorm(nn.Module):
    """Scale and shift per channel: what is left of a normalisation that no convolution precedes.

    A product and a sum, not BatchNormalization: that TensorRT cannot refit, as its parser renames the weights. Under
    mixed precision they are computed in float32 and rounded to the precision of ``x``, as BatchNorm does.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels), requires_grad=False)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        del lam  # already in the weights
        return (x * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)


class FoldedLinear(nn.Module):
    """Plain linear layer into which the condition has been folded."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        del lam  # already in the weights
        return linear(x, self.weight, self.bias)


FLOAT = Layers(FloatConv, FloatBareConv, FloatNorm, FloatNorm, FloatLinear)
FOLDED = Layers(FoldedConv, FoldedConv, FoldedNorm, FoldedNorm, FoldedLinear)
PLAIN = Layers(PlainConv, PlainBareConv, PlainNorm, PlainNorm, PlainLinear)


def film(batchnorm: str, dimensions: int) -> Layers:
    """OAT's layers, called with an :class:`~floats_edge.method.film.EncodedLambda`.

    What no BatchNorm follows is unconditioned: bare convolutions and the classifier.
    """
    return Layers(
        conv=partial(FilmConv, batchnorm, dimensions),
        bare_conv=PlainBareConv,
        norm=partial(FilmNorm, batchnorm, dimensions),
        last_norm=partial(OatNorm, batchnorm),
        linear=PlainLinear,
    )
