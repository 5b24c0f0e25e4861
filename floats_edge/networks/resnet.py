"""ResNets for small images: He et al., CVPR 2016, section 4.2, with 1x1 projections where the shape changes."""

import torch
from torch import Tensor, nn

from floats_edge.networks.layers import check_sizes, classifier, convolution, projection

DEPTHS: dict[str, tuple[int, ...]] = {
    "resnet8": (1, 1, 1),
    "resnet14": (2, 2, 2),
    "resnet20": (3, 3, 3),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
}
"""Blocks of each stage."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. ``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, out_channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = projection(in_channels, out_channels, stride) if changes else nn.Identity()
        self.shortcut_norm = nn.BatchNorm2d(out_channels) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(out)) + self.shortcut_norm(self.shortcut(x)))


class ResNet(nn.Module):
    """Stem, stages of basic blocks (each later stage doubles the channels and halves the size), mean, linear head.

    Args:
        depths: blocks of each stage.
        classes: of the logits.
        channels: of the images.
        width: channels of the first stage.
        stem_stride: 1 or 2.
    """

    def __init__(
        self, depths: tuple[int, ...], classes: int, channels: int = 3, width: int = 16, stem_stride: int = 1
    ) -> None:
        super().__init__()
        check_sizes(width, stem_stride)
        self.stem = convolution(channels, width, 3, stem_stride)
        self.stem_norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList()
        before = width
        for stage, depth in enumerate(depths):
            after = width * 2**stage
            for position in range(depth):
                self.blocks.append(BasicBlock(before, after, stride=2 if stage and not position else 1))
                before = after
        self.head = classifier(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]``."""
        x = torch.relu(self.stem_norm(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))
