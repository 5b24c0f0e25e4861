"""Wide ResNets: Zagoruyko & Komodakis, BMVC 2016, with normalisation and ReLU before the convolutions.

``wrn-d-k`` has d convolutions, and stages that are k times as wide as those of a ResNet whose stem and first stage have
as many channels as the width; published networks have 16.
"""

import torch
from torch import Tensor, nn

from floats_edge.networks.layers import check_sizes, classifier, convolution, projection

WIDE: dict[str, tuple[tuple[int, ...], int]] = {"wrn-16-8": ((2, 2, 2), 8), "wrn-40-2": ((6, 6, 6), 2)}
"""Blocks of each stage, and the widening factor."""


class PreActivationBlock(nn.Module):
    """ReLU, 3x3 convolution, normalisation, ReLU, 3x3 convolution, and a shortcut: He et al., ECCV 2016.

    What comes in is ``[N, in, H, W]`` and what goes out ``[N, out, H/stride, W/stride]``. In the first block of a stage
    a 1x1 projection of what has been normalised is the shortcut; elsewhere it is what came in.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, out_channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 3)
        self.shortcut = projection(in_channels, out_channels, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(torch.relu(self.norm1(self.conv1(out)))) + shortcut


class WideResNet(nn.Module):
    """Stem, stages of blocks (each later one doubles the channels and halves the size), normalisation, mean, head.

    Args:
        depths: blocks of each stage.
        factor: how many times as wide as a ResNet's the stages are.
        classes: of the logits.
        channels: of the images.
        width: channels of the stem.
        stem_stride: 1 or 2.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        factor: int,
        classes: int,
        channels: int = 3,
        width: int = 16,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        check_sizes(width, stem_stride)
        self.stem = convolution(channels, width, 3, stem_stride)
        self.blocks = nn.ModuleList()
        before = width
        for stage, depth in enumerate(depths):
            after = width * factor * 2**stage
            for position in range(depth):
                first = position == 0
                self.blocks.append(PreActivationBlock(before, after, 2 if stage and first else 1, projects=first))
                before = after
        self.norm = nn.BatchNorm2d(before)
        self.head = classifier(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]``."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(torch.relu(self.norm(x)).mean(dim=(2, 3)))
