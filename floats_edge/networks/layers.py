"""The layers of our own networks, with their first weights; the random numbers of torch's own are not drawn."""

import math

import torch
from torch import Tensor, nn

from floats_edge.method.layers import pointwise
from floats_edge.method.plan import Parts


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``, without bias; weights as in He et al., ICCV 2015."""
    layer = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False, device="meta"
    ).to_empty(device=torch.get_default_device())
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Projection(nn.Conv2d):
    """A strided 1x1 convolution without bias: the shortcut where the shape changes. Sizes are rounded up.

    Its gradients are those of :func:`~floats_edge.method.layers.pointwise`.
    """

    def forward(self, input: Tensor) -> Tensor:
        return pointwise(input, self.weight, None, self) if torch.is_grad_enabled() else super().forward(input)


def projection(in_channels: int, out_channels: int, stride: int) -> Projection:
    """``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``; first weights as of a convolution."""
    layer = Projection(in_channels, out_channels, 1, stride, bias=False, device="meta").to_empty(device="cpu")
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def as_convolution(layer: Projection) -> Parts:
    """The convolution that a projection is, for the condition: its weight is shared."""
    stride = (layer.stride[0], layer.stride[1])
    plain = nn.Conv2d(layer.in_channels, layer.out_channels, 1, stride, bias=False, device="meta")
    plain.weight = layer.weight
    return plain, None


def check_sizes(width: int, stem_stride: int) -> None:
    """Refuse what is no width or stride of a network.

    Raises:
        ValueError: it is none.
    """
    if width < 1 or stem_stride not in (1, 2):
        raise ValueError(f"width must be 1 or more and stem_stride 1 or 2, not {width} and {stem_stride}")


def classifier(in_features: int, classes: int) -> nn.Linear:
    """``[N, in]`` to logits ``[N, classes]``; its bias begins at zero."""
    layer = nn.Linear(in_features, classes, device="meta").to_empty(device=torch.get_default_device())
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    nn.init.zeros_(layer.bias)
    return layer
