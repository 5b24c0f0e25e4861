"""Removing cut channels: the narrower network computes the same, and one that would not is refused."""

import copy
import typing
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.networks import IMAGES, OneMoreHeadInTraining, trained
from torch import nn

from floats_edge.errors import NetworkError
from floats_edge.method.channel_groups import STAYS, ChannelGroups, channel_groups
from floats_edge.method.channels import ChannelMasks, kept_count
from floats_edge.method.condition import condition, conditioned_layers, fold, load_weights, unfilled
from floats_edge.method.fold import VECTORS, AffineLayers, Rule, weights_at
from floats_edge.method.narrow import check_channels, check_training, narrowed
from floats_edge.networks.build import build
from floats_edge.networks.spec import NetworkSpec

LAMBDAS = (0.0, 0.25, 0.6, 1.0)
FOREIGN = ("mobilenet_v2", "shufflenet_v2_x0_5", "efficientnet_b0")


def cut(
    network: nn.Module, density: float = 0.5, multiple: int = 2, rule: Rule = "interpolate"
) -> tuple[nn.Module, AffineLayers, ChannelGroups]:
    """A network as plain layers of full width, its channels cut, and which these are; it is narrow itself then."""
    layers, whole = conditioned_layers(network), copy.deepcopy(network)
    plain = unfilled(whole, conditioned_layers(whole))
    channels = channel_groups(plain, layers, IMAGES)
    counts = [kept_count(len(group.classes), density, multiple) for group in channels.groups]
    masks = ChannelMasks(layers, channels, counts)
    masks.cut(torch.optim.SGD(network.parameters(), lr=0.1))
    state = {name: masks.kept.widened(name, tensor.numpy()) for name, tensor in network.state_dict().items()}
    whole.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    return plain, {name: layer.numpy() for name, layer in fold(conditioned_layers(whole), rule).items()}, channels


def logits(plain: nn.Module, layers: AffineLayers, lam: float) -> torch.Tensor:
    weights = weights_at(layers, lam)
    load_weights(plain, {name: torch.from_numpy(np.asarray(array)) for name, array in weights.items()})
    with torch.no_grad():
        return plain(IMAGES)


@pytest.mark.parametrize("rule", typing.get_args(Rule))
@pytest.mark.parametrize("name", ["resnet8", "resnet18", "wrn-16-8"])
def test_the_narrowed_network_computes_what_the_masked_one_does(name: str, rule: Rule) -> None:
    plain, layers, channels = cut(trained(name, width=8)[0], rule=rule)
    thin = copy.deepcopy(plain)
    left = narrowed(thin, layers, channels)
    assert left["blocks.1.conv2"].theta.size * 4 == layers["blocks.1.conv2"].theta.size
    for lam in LAMBDAS:
        masked = logits(plain, layers, lam)
        torch.testing.assert_close(logits(thin, left, lam), masked, atol=1e-5, rtol=1e-5)
        assert masked.std(dim=0).max() > 1e-3, "another image gives other logits"


@pytest.mark.parametrize("name", FOREIGN)
def test_so_does_one_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    network = build(NetworkSpec(source="torchvision", name=name), classes=7, channels=3).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    condition(network, images)
    layers = conditioned_layers(network)
    plain = unfilled(network, layers)
    channels = channel_groups(plain, layers, images)
    affine = {name: layer.numpy() for name, layer in fold(layers, "interpolate").items()}
    before = sum(parameter.numel() for parameter in plain.parameters())
    check_channels(plain, affine, channels, images)
    assert channels.count > 100
    assert sum(parameter.numel() for parameter in plain.parameters()) == before, "the network stays as wide as it was"


def test_channels_that_are_not_what_they_seem_are_refused() -> None:
    plain, layers, channels = cut(trained("resnet8", width=8)[0], density=0.9)
    affine = {name: replace(layer, mask=np.ones_like(layer.mask)) for name, layer in layers.items()}
    check_channels(plain, affine, channels, IMAGES)
    swapped = dict(channels.layers)
    swapped["blocks.0.conv2"] = replace(swapped["blocks.0.conv2"], inputs=swapped["blocks.0.conv2"].inputs[::-1])
    wrong = ChannelGroups(swapped, channels.groups)
    with pytest.raises(NetworkError, match=r"cannot be removed: the logits of a narrower one are off by"):
        check_channels(plain, affine, wrong, IMAGES)
    whole = np.full_like(swapped["blocks.0.conv2"].inputs, STAYS)
    swapped["blocks.0.conv2"] = replace(swapped["blocks.0.conv2"], inputs=whole)
    with pytest.raises(NetworkError, match=r"cannot be removed: a narrower one does not run"):
        check_channels(plain, affine, wrong, IMAGES)


def test_logits_in_which_no_error_would_show_are_refused() -> None:
    plain, layers, channels = cut(trained("resnet8", width=8)[0], density=0.9)
    affine = {
        name: replace(layer, mask=np.ones_like(layer.mask), theta=np.zeros_like(layer.theta))
        for name, layer in layers.items()
    }
    for parameter in plain.parameters():
        parameter.zero_()
    with pytest.raises(NetworkError, match=r"cannot be removed: its logits are all alike"):
        check_channels(plain, affine, channels, IMAGES)


def test_what_is_left_is_dense_and_says_where_it_was() -> None:
    plain, layers, channels = cut(trained("resnet8", width=8)[0])
    left = narrowed(plain, layers, channels)
    assert [left[name].theta.shape[0] for name in ("stem", "blocks.0.conv1", "blocks.1.conv2", "head")] == [4, 4, 8, 7]
    for name, layer in left.items():
        assert layer.mask.all()
        assert layer.drawn.shape == layers[name].mask.shape
        for field in ("theta", "noise"):
            np.testing.assert_array_equal(getattr(layers[name], field)[layer.drawn], getattr(layer, field).reshape(-1))
        assert {len(getattr(layer, vector)) for vector in VECTORS} == {len(layer.theta)}


@pytest.mark.parametrize("name", ["resnet8", "wrn-16-8"])
def test_what_is_left_is_what_the_network_in_training_folds_into(name: str) -> None:
    network = trained(name, width=8)[0]
    plain, layers, channels = cut(network)
    for name, layer in narrowed(plain, layers, channels).items():
        found = fold(conditioned_layers(network), "interpolate")[name].numpy()
        for field in (*VECTORS, "theta", "noise", "mask"):
            np.testing.assert_allclose(getattr(found, field), getattr(layer, field), rtol=1e-5, atol=1e-7)


def test_a_network_that_would_not_train_is_refused() -> None:
    network = trained("resnet8", width=8)[0]
    layers = conditioned_layers(network)
    check_training(network, channel_groups(unfilled(network, layers), layers, IMAGES), IMAGES)
    assert network.stem.weight.theta.shape[0] == 8
    network = OneMoreHeadInTraining()
    condition(network, IMAGES)
    layers = conditioned_layers(network)
    with pytest.raises(NetworkError, match="cannot be removed: a narrower one does not train"):
        check_training(network, channel_groups(unfilled(network, layers), layers, IMAGES), IMAGES)


def test_a_group_that_stays_whole_leaves_its_layers_alone() -> None:
    """At a share of 0.9 in multiples of 2, only the widest groups lose channels."""
    plain, layers, channels = cut(trained("resnet8", width=8)[0], 0.9)
    thin = copy.deepcopy(plain)
    left = narrowed(thin, layers, channels)
    assert [left[f"blocks.{index}.conv2"].theta.shape[0] for index in range(3)] == [8, 16, 30]
    assert left["stem"] is layers["stem"]
    assert left["stem"].drawn is None
    torch.testing.assert_close(logits(thin, left, 0.5), logits(plain, layers, 0.5))


def test_a_network_without_a_cut_stays_what_it_is() -> None:
    plain, layers, channels = cut(trained("resnet8", width=8)[0], density=1.0)
    assert narrowed(plain, layers, channels) == layers
