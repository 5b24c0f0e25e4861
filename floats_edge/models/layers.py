"""The layer kinds a backbone is built from; every layer is called as ``layer(x, lam)``."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from floats_edge.method.conditioning import ConditionedLinear, FloatConv


@dataclass(frozen=True)
class Layers:
    """A layer factory: ``conv(in, out, kernel, stride)`` includes its normalisation, ``linear(in, out)`` does not."""

    conv: Callable[[int, int, int, int], nn.Module]
    linear: Callable[[int, int], nn.Module]


class FoldedConv2d(nn.Conv2d):
    """Plain convolution with bias, into which BatchNorm and the condition have been folded."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)

    def forward(self, input: Tensor, lam: float = 0.0) -> Tensor:
        del lam  # already in the weights
        return super().forward(input)


class FoldedLinear(nn.Linear):
    """Plain linear layer into which the condition has been folded."""

    def forward(self, input: Tensor, lam: float = 0.0) -> Tensor:
        del lam  # already in the weights
        return super().forward(input)


FLOAT = Layers(FloatConv, ConditionedLinear)
FOLDED = Layers(FoldedConv2d, FoldedLinear)
