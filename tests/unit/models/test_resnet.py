import typing

import pytest
import torch
from fixtures.networks import spec

from floats_edge.method.conditioning import conditioned_weights, float_layers
from floats_edge.models.build import build, load_weights
from floats_edge.models.layers import FLOAT, FOLDED
from floats_edge.models.spec import DEPTHS, WIDE, Architecture

ARCHITECTURES = typing.get_args(Architecture)


def test_every_architecture_of_the_schema_can_be_built() -> None:
    assert set(ARCHITECTURES) == {*DEPTHS, *WIDE}


def test_resnet34_for_cifar_has_the_size_that_was_published() -> None:
    """Plain 21,282,122 (He et al.), and per layer one alpha and a second BatchNorm."""
    with torch.device("meta"):
        network = build(spec("resnet34", width=64, classes=10, image_shape=(3, 32, 32)), FLOAT)
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_299_183


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("layers", [FLOAT, FOLDED], ids=["float", "folded"])
def test_forward(arch: str, layers: typing.Any) -> None:
    network = build(spec(arch), layers).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        logits = network(torch.rand(2, 3, 16, 16), 0.5)
    assert logits.shape == (2, 7)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("arch", DEPTHS)
def test_number_in_the_name_counts_the_layers(arch: str) -> None:
    """Shortcuts apart."""
    names = [name for name in conditioned_weights(build(spec(arch), FLOAT)) if "shortcut" not in name]
    assert len(names) == int(arch.removeprefix("resnet"))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_folded_network_has_the_same_layers_in_the_same_order(arch: str) -> None:
    layers = list(float_layers(build(spec(arch), FLOAT)))
    folded = build(spec(arch), FOLDED)
    assert [name for name, _ in folded.named_parameters()] == [
        f"{n}.{kind}" for n in layers for kind in ("weight", "bias")
    ]
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_order_of_the_layers_is_that_of_their_definition() -> None:
    """The position of a layer is the index of its noise, in every language: it must never change."""
    assert list(conditioned_weights(build(spec("resnet8"), FLOAT))) == [
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


def test_images_are_normalised_inside() -> None:
    """A constant image that equals the mean is zero to the stem, so only biases are left."""
    network = build(spec("resnet8"), FOLDED)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter) if name.endswith("weight") else torch.nn.init.zeros_(parameter)
    images = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert network(images).abs().max() == 0
    half_contrast = build(spec("resnet8", std=(0.4, 0.4, 0.4)), FOLDED)
    load_weights(half_contrast, dict(network.named_parameters()))
    torch.testing.assert_close(half_contrast(images + 0.4), network(images + 0.2), rtol=1e-4, atol=1e-4)


def test_stem_stride_halves_what_the_blocks_see() -> None:
    sizes = {}
    for stride in (1, 2):
        network = build(spec("resnet8", stem_stride=stride), FLOAT).eval()
        network.get_submodule("blocks.0").register_forward_pre_hook(
            lambda _, args, stride=stride: sizes.__setitem__(stride, tuple(args[0].shape))
        )
        network(torch.rand(2, 3, 16, 16), 0.0)
    assert sizes == {1: (2, 4, 16, 16), 2: (2, 4, 8, 8)}


def test_loading_wants_every_weight() -> None:
    folded = build(spec("resnet8"), FOLDED)
    weights = dict(folded.named_parameters())
    del weights["head.bias"]
    with pytest.raises(AssertionError, match=r"head\.bias"):
        load_weights(folded, weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.5,)},
        {"std": (0.2, 0.2, 0.0)},
        {"std": (0.2, 0.2, float("nan"))},
        {"width": 0},
        {"classes": 1},
        {"arch": "vgg"},
    ],
)
def test_spec_refuses_what_is_no_network(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        spec(**{"arch": "resnet8", **changes})
