"""ResNets for small images: He et al., CVPR 2016, section 4.2, with 1x1 projections where the shape changes."""

import torch
from torch import Tensor, nn

from floats_edge.models.layers import Layers
from floats_edge.models.spec import ModelSpec, own_widths, places


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. ``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``."""

    def __init__(self, layers: Layers, in_channels: int, inner: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, inner, 3, stride)
        self.conv2 = layers.conv(inner, out_channels, 3, 1)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = layers.conv(in_channels, out_channels, 1, stride) if changes else None

    def forward(self, x: Tensor, lam: float) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x, lam)
        out = torch.relu(self.conv1(x, lam))
        return torch.relu(self.conv2(out, lam) + shortcut)


class Normalize(nn.Module):
    """``(x - mean) / std`` per channel: the preprocessing, inside the network so that no caller can get it wrong."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class ResNet(nn.Module):
    """Stem, stages of basic blocks (each later stage doubles the channels and halves the size), mean, linear head."""

    def __init__(self, spec: ModelSpec, layers: Layers) -> None:
        super().__init__()
        widths = spec.widths or own_widths(spec.arch, spec.width)
        self.normalize = Normalize(spec.mean, spec.std)
        self.stem = layers.conv(spec.image_shape[0], widths.streams[0], 3, spec.stem_stride)
        blocks: list[nn.Module] = []
        for (source, target, stride), inner in zip(places(spec.arch), widths.inner, strict=True):
            blocks.append(BasicBlock(layers, widths.streams[source], inner, widths.streams[target], stride))
        self.blocks = nn.ModuleList(blocks)
        self.head = layers.linear(widths.streams[-1], spec.classes)

    def forward(self, images: Tensor, lam: float = 0.0) -> Tensor:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]`` in [0, 1]."""
        x = torch.relu(self.stem(self.normalize(images), lam))
        for block in self.blocks:
            x = block(x, lam)
        return self.head(x.mean(dim=(2, 3)), lam)
