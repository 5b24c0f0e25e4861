"""The networks of our own: their published sizes, their layers, and what arguments they take."""

import pytest
import torch
from torch import nn

from floats_edge.errors import NetworkError
from floats_edge.method.network_check import check_network
from floats_edge.networks.build import BUILTIN, build
from floats_edge.networks.resnet import DEPTHS
from floats_edge.networks.spec import NetworkSpec
from floats_edge.networks.wide_resnet import WIDE


def network(name: str, **arguments: int) -> nn.Module:
    return build(NetworkSpec.model_validate({"name": name, "arguments": arguments}), classes=10, channels=3)


@pytest.mark.parametrize(
    ("name", "width", "parameters"),
    [("resnet34", 64, 21_282_122), ("wrn-16-8", 16, 10_961_370), ("wrn-40-2", 16, 2_243_546)],
)
def test_size_is_the_published_one(name: str, width: int, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in network(name, width=width).parameters()) == parameters


@pytest.mark.parametrize("name", BUILTIN)
def test_images_become_logits(name: str) -> None:
    small = build(NetworkSpec(name=name, arguments={"width": 2}), classes=7, channels=1)
    check_network(small, torch.rand(2, 1, 16, 16), classes=7)


@pytest.mark.parametrize("name", [*DEPTHS, *WIDE])
def test_number_in_the_name_counts_the_layers(name: str) -> None:
    """Shortcuts apart; that of a wide ResNet does not count the head."""
    layers = [it for it, module in network(name, width=2).named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    head = 1 if name in WIDE else 0
    depth = name.removeprefix("resnet").removeprefix("wrn-").partition("-")[0]
    assert len([layer for layer in layers if "shortcut" not in layer]) == int(depth) - (3 if head else 0) + head


def test_layers_are_defined_in_the_order_of_the_forward_pass() -> None:
    """The position of a layer is the index of its noise, in every language: it must never change."""
    ran = []
    small = network("resnet8", width=2)
    names = [name for name, module in small.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for name in names:
        small.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    small(torch.rand(2, 3, 8, 8))
    assert names == [
        "stem",
        "blocks.0.conv1",
        "blocks.0.conv2",
        "blocks.1.conv1",
        "blocks.1.conv2",
        "blocks.1.shortcut",
        "blocks.2.conv1",
        "blocks.2.conv2",
        "blocks.2.shortcut",
        "head",
    ]
    assert sorted(ran) == sorted(names)


@pytest.mark.parametrize("name", ["resnet8", "wrn-16-8"])
def test_a_stem_of_stride_2_halves_what_the_blocks_see(name: str) -> None:
    seen = []
    small = network(name, width=1, stem_stride=2)
    small.get_submodule("blocks.0").register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    small(torch.rand(1, 3, 16, 16))
    assert seen == [(8, 8)]


def test_gradients_of_narrow_strided_shortcuts_are_right_channels_last() -> None:
    """A library computes wrong ones, or crashes, for a strided 1x1 convolution of fewer than 8 channels."""
    torch.manual_seed(0)
    small = network("resnet8", width=4)
    images = torch.rand(8, 3, 16, 16)
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        small.to(memory_format=memory_format).zero_grad()
        small(images.contiguous(memory_format=memory_format)).square().sum().backward()
        gradients.append(small.get_parameter("blocks.1.shortcut.weight").grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments", [{"width": 0}, {"width": 4, "depth": 3}, {"width": "wide"}, {"stem_stride": 0}, {"classes": 4}]
)
def test_other_arguments_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(NetworkError, match=r"resnet8.*|classes") as told:
        network("resnet8", **arguments)
    assert "model.arguments" in told.value.fix
