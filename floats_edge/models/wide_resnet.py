"""Wide ResNets: Zagoruyko & Komodakis, BMVC 2016, with normalisation and ReLU before the convolutions.

``wrn-d-k`` has d convolutions, and stages that are k times as wide as those of a ResNet whose stem and first stage have
as many channels as the spec's width; published networks have 16.
"""

import torch
from torch import Tensor, nn

from floats_edge.models.layers import Layers
from floats_edge.models.resnet import Normalize
from floats_edge.models.spec import ModelSpec, Place, Widths, own_widths, places


class PreActivationBlock(nn.Module):
    """ReLU, 3x3 convolution, normalisation, ReLU, 3x3 convolution, and a shortcut: He et al., ECCV 2016.

    What comes in is ``[N, in, H, W]`` and what goes out ``[N, out, H/stride, W/stride]``. In the first block of a stage
    a 1x1 projection of what has been normalised is the shortcut; elsewhere it is what came in.

    Args:
        layers: factory.
        widths: of the network.
        place: of this block.
        inner: channels between the convolutions.
    """

    def __init__(self, layers: Layers, widths: Widths, place: Place, inner: int) -> None:
        super().__init__()
        in_channels, out_channels = widths.streams[place.source], widths.streams[place.target]
        self.norm = layers.norm(in_channels)
        self.conv1 = layers.conv(in_channels, inner, 3, place.stride)
        self.conv2 = layers.bare_conv(inner, out_channels, 3, 1)
        projects = place.source != place.target
        self.shortcut = layers.bare_conv(in_channels, out_channels, 1, place.stride) if projects else None

    def forward(self, x: Tensor, lam: float) -> Tensor:
        out = torch.relu(self.norm(x, lam))
        shortcut = x if self.shortcut is None else self.shortcut(out, lam)
        out = torch.relu(self.conv1(out, lam))
        return self.conv2(out, lam) + shortcut


class WideResNet(nn.Module):
    """Stem, stages of blocks (each later one doubles the channels and halves the size), normalisation, mean, head."""

    def __init__(self, spec: ModelSpec, layers: Layers) -> None:
        super().__init__()
        widths = spec.widths or own_widths(spec.arch, spec.width)
        self.normalize = Normalize(spec.mean, spec.std)
        self.stem = layers.bare_conv(spec.image_shape[0], widths.streams[0], 3, spec.stem_stride)
        self.blocks = nn.ModuleList(
            PreActivationBlock(layers, widths, place, inner)
            for place, inner in zip(places(spec.arch), widths.inner, strict=True)
        )
        self.norm = layers.last_norm(widths.streams[-1])
        self.head = layers.linear(widths.streams[-1], spec.classes)

    def forward(self, images: Tensor, lam: float = 0.0) -> Tensor:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]`` in [0, 1]."""
        x = self.stem(self.normalize(images), lam)
        for block in self.blocks:
            x = block(x, lam)
        x = torch.relu(self.norm(x, lam))
        return self.head(x.mean(dim=(2, 3)), lam)
