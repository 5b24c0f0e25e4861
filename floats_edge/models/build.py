"""From a :class:`ModelSpec` and a layer kind to a network."""

import torch
from torch import nn

from floats_edge.models.layers import Layers
from floats_edge.models.resnet import ResNet
from floats_edge.models.spec import ModelSpec

DEPTHS: dict[str, tuple[int, ...]] = {
    "resnet8": (1, 1, 1),
    "resnet14": (2, 2, 2),
    "resnet20": (3, 3, 3),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
}


def build(spec: ModelSpec, layers: Layers) -> nn.Module:
    """Build the network ``spec`` describes; initial weights come from torch's global generator."""
    network = ResNet(spec, layers, DEPTHS[spec.arch])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)
