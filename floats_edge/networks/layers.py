"""The layers of our own networks, with their first weights; the random numbers of torch's own are not drawn."""

import math

import torch
from torch import nn


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``, without bias; weights as in He et al., ICCV 2015."""
    layer = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False, device="meta"
    ).to_empty(device=torch.get_default_device())
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


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
