"""ResNets for small images: He et al., CVPR 2016, section 4.2, with 1x1 projections where the shape changes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from floats_edge.method.channels import ChannelGroup, ChannelGroups
from floats_edge.models.layers import Layers
from floats_edge.models.spec import DEPTHS, ModelSpec, own_widths


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
        channels = widths.streams[0]
        for (stage, position), inner in zip(_blocks(spec.arch), widths.inner, strict=True):
            stride = 2 if stage > 0 and position == 0 else 1
            blocks.append(BasicBlock(layers, channels, inner, widths.streams[stage], stride))
            channels = widths.streams[stage]
        self.blocks = nn.ModuleList(blocks)
        self.head = layers.linear(channels, spec.classes)

    def forward(self, images: Tensor, lam: float = 0.0) -> Tensor:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]`` in [0, 1]."""
        x = torch.relu(self.stem(self.normalize(images), lam))
        for block in self.blocks:
            x = block(x, lam)
        return self.head(x.mean(dim=(2, 3)), lam)


def channel_groups(spec: ModelSpec) -> ChannelGroups:
    """Which layers of a :class:`ResNet` share channels.

    All that is added to the residual stream of a stage shares its channels: what the stem or the projection of the
    first block writes, and what the second convolution of every block adds. The stem's images and the classes stay.
    """
    widths = spec.widths or own_widths(spec.arch, spec.width)
    writers: list[list[str]] = [[] for _ in widths.streams]
    readers: list[list[str]] = [[] for _ in widths.streams]
    writers[0].append("stem")
    inner = []
    for index, (stage, position) in enumerate(_blocks(spec.arch)):
        block = f"blocks.{index}"
        projects = stage > 0 and position == 0
        source = stage - 1 if projects else stage
        readers[source].append(f"{block}.conv1")
        writers[stage].append(f"{block}.conv2")
        if projects:
            readers[source].append(f"{block}.shortcut")
            writers[stage].append(f"{block}.shortcut")
        inner.append(ChannelGroup(block, widths.inner[index], (f"{block}.conv1",), (f"{block}.conv2",)))
    readers[-1].append("head")
    streams = (
        ChannelGroup(f"stream {stage}", size, tuple(writers[stage]), tuple(readers[stage]))
        for stage, size in enumerate(widths.streams)
    )
    return ChannelGroups(tuple(streams), tuple(inner))


def _blocks(arch: str) -> Iterator[tuple[int, int]]:
    """Stage, and position therein, of every block."""
    return ((stage, position) for stage, depth in enumerate(DEPTHS[arch]) for position in range(depth))
