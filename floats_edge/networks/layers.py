"""The layers of our own networks, with their first weights."""

import math

from torch import nn


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``, without bias; weights as He et al., ICCV 2015, draw them."""
    layer = nn.utils.skip_init(
        nn.Conv2d, in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def classifier(in_features: int, classes: int) -> nn.Linear:
    """``[N, in]`` to logits ``[N, classes]``; its bias begins at zero."""
    layer = nn.utils.skip_init(nn.Linear, in_features, classes)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    nn.init.zeros_(layer.bias)
    return layer
