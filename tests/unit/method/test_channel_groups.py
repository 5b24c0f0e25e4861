"""Which channels can only go together, in networks of every kind of joint."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from floats_edge.method.channel_groups import STAYS, ChannelGroups, channel_groups
from floats_edge.method.condition import condition, conditioned_layers, unfilled
from floats_edge.networks.build import BUILTIN, build, register
from floats_edge.networks.spec import NetworkSpec

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def groups_of(network: nn.Module) -> ChannelGroups:
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return channel_groups(network.eval(), dict.fromkeys(layers), IMAGES)


def stays(groups: ChannelGroups, layer: str) -> bool:
    return bool((groups.layers[layer].outputs == STAYS).all())


@pytest.mark.parametrize("name", BUILTIN)
def test_every_channel_of_our_networks_can_go_but_the_images_and_the_classes(name: str) -> None:
    spec = NetworkSpec(name=name, arguments={"width": 8})
    network = build(spec, classes=7, channels=3)
    condition(network, IMAGES, register=register(spec))
    layers = conditioned_layers(network)
    groups = channel_groups(unfilled(network, layers), layers, IMAGES)
    for layer, channels in groups.layers.items():
        assert (channels.outputs == STAYS).all() == (layer == "head")
        assert channels.inputs is None or (channels.inputs == STAYS).any() == (layer == "stem")
    assert len({group.name for group in groups.groups}) == len(groups.groups)


class Joints(nn.Module):
    """Two convolutions whose outputs are joined, and one that reads them."""

    def __init__(self, joint: str) -> None:
        super().__init__()
        self.joint = joint
        self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.reads = nn.Conv2d(8 if joint == "cat" else 4, 6, 1, groups=2 if joint == "groups" else 1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.head = nn.Linear(6 * 100 if joint == "flatten" else 6, 5)

    def forward(self, images: Tensor) -> Tensor:
        one, other = relu(self.one(images)), self.other(images)
        x = self.reads(self.joined(one, other))
        return self.head(x.flatten(1) if self.joint == "flatten" else x.mean((2, 3)))

    def joined(self, one: Tensor, other: Tensor) -> Tensor:
        if self.joint == "cat":
            return torch.cat((one, other), dim=1)
        if self.joint == "gate":
            return one * torch.sigmoid(other.mean((2, 3), keepdim=True))
        if self.joint == "scale":
            return one * self.scale
        if self.joint == "shuffle":
            return one.view(2, 2, 2, 10, 10).transpose(1, 2).reshape(2, 4, 10, 10) + 0 * other.sum()
        if self.joint == "halves":
            return torch.cat((one[:, :2], other[:, 2:]), dim=1)
        if self.joint == "attend":
            return one * other.mean(1, keepdim=True)
        return one + other


@pytest.mark.parametrize("joint", ["add", "gate", "flatten"])
def test_what_is_joined_element_by_element_goes_together(joint: str) -> None:
    groups = groups_of(Joints(joint))
    one, other = groups.layers["one"].outputs, groups.layers["other"].outputs
    assert (one == other).all()
    assert (one != STAYS).all()
    assert len(groups.groups) == 2


def test_what_is_concatenated_goes_apart() -> None:
    groups = groups_of(Joints("cat"))
    one, other = groups.layers["one"].outputs.tolist(), groups.layers["other"].outputs.tolist()
    assert groups.layers["reads"].inputs is not None
    assert groups.layers["reads"].inputs.tolist() == one + other
    assert not set(one) & set(other)


def test_a_flattened_channel_is_read_in_many_places() -> None:
    inputs = groups_of(Joints("flatten")).layers["head"].inputs
    assert inputs is not None
    assert len(inputs) == 600
    assert len(set(inputs.tolist())) == 6


@pytest.mark.parametrize(
    ("joint", "pinned"),
    [
        ("scale", ["one"]),
        ("shuffle", ["one", "other"]),
        ("halves", ["one", "other"]),
        ("groups", ["one", "other", "reads"]),
        ("attend", ["other"]),
    ],
)
def test_what_depends_on_the_place_of_a_channel_stays(joint: str, pinned: list[str]) -> None:
    groups = groups_of(Joints(joint))
    assert [name for name in ("one", "other", "reads") if stays(groups, name)] == pinned
