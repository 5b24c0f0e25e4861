"""Wide ResNets: Zagoruyko & Komodakis, BMVC 2016, with normalisation and ReLU before the convolutions.

``wrn-d-k`` has d convolutions, and stages that are k times as wide as those of a ResNet whose stem and first stage have
as many channels as the spec's width; published networks have 16.
"""

import torch
from torch import Tensor, nn

from floats_edge.models.layers import Layers
from floats_edge.models.resnet import Normalize
from floats_edge.models.spec import ModelSpec


class PreActivationBlock(nn.Module):
    """ReLU, 3x3 convolution, normalisation, ReLU, 3x3 convolution, and a shortcut: He et al., ECCV 2016.

    What comes in is ``[N, in, H, W]`` and what goes out ``[N, out, H/stride, W/stride]``. Where the shape changes, a
    1x1 projection of what has been normalised is the shortcut; elsewhere it is what came in.

    Args:
        layers: factory.
        in_channels: of what comes in.
        out_channels: of what goes out.
        stride: of the first convolution.
    """

    def __init__(self, layers: Layers, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm = layers.norm(in_channels)
        self.conv1 = layers.conv(in_channels, out_channels, 3, stride)
        self.conv2 = layers.bare_conv(out_channels, out_channels, 3, 1)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = layers.bare_conv(in_channels, out_channels, 1, stride) if changes else None

    def forward(self, x: Tensor, lam: float) -> Tensor:
        out = torch.relu(self.norm(x, lam))
        shortcut = x if self.shortcut is None else self.shortcut(out, lam)
        out = torch.relu(self.conv1(out, lam))
        return self.conv2(out, lam) + shortcut


class WideResNet(nn.Module):
    """Stem, stages of blocks (each later one doubles the channels and halves the size), normalisation, mean, head.

    Args:
        spec: of the network.
        layers: factory.
        depths: blocks of each stage.
        factor: by which the stages are widened.
    """

    def __init__(self, spec: ModelSpec, layers: Layers, depths: tuple[int, ...], factor: int) -> None:
        super().__init__()
        self.normalize = Normalize(spec.mean, spec.std)
        self.stem = layers.bare_conv(spec.image_shape[0], spec.width, 3, spec.stem_stride)
        blocks: list[nn.Module] = []
        channels = spec.width
        for stage, depth in enumerate(depths):
            for position in range(depth):
                out_channels = spec.width * factor * 2**stage
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(PreActivationBlock(layers, channels, out_channels, stride))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.norm = layers.last_norm(channels)
        self.head = layers.linear(channels, spec.classes)

    def forward(self, images: Tensor, lam: float = 0.0) -> Tensor:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]`` in [0, 1]."""
        x = self.stem(self.normalize(images), lam)
        for block in self.blocks:
            x = block(x, lam)
        x = torch.relu(self.norm(x, lam))
        return self.head(x.mean(dim=(2, 3)), lam)
