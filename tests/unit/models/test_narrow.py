"""Removing cut channels: which layers share them, and that the narrower network computes the same."""

import typing
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.networks import spec
from torch import nn

from floats_edge.method.channels import ChannelMasks, kept_count
from floats_edge.method.conditioning import draw_noise
from floats_edge.method.fold import AffineLayer, Rule, fold_network, weights_at
from floats_edge.models.build import build, load_weights
from floats_edge.models.groups import channel_groups
from floats_edge.models.layers import FLOAT, FOLDED
from floats_edge.models.narrow import narrowed
from floats_edge.models.spec import Architecture, ModelSpec, Widths

ARCHITECTURES = typing.get_args(Architecture)
LAMBDAS = (0.0, 0.25, 0.6, 1.0)


def cut_layers(topology: ModelSpec, density: float = 0.5, multiple: int = 2) -> dict[str, AffineLayer]:
    """A network with lively BatchNorms, its channels cut; arrays."""
    torch.manual_seed(1)
    network = build(topology, FLOAT).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    draw_noise(network, 3)
    groups = channel_groups(topology)
    masks = ChannelMasks(network, groups, {group.name: kept_count(group.size, density, multiple) for group in groups})
    masks.cut(torch.optim.SGD(network.parameters(), lr=0.1))
    return {name: layer.numpy() for name, layer in fold_network(network).items()}


def logits(layers: dict[str, AffineLayer], topology: ModelSpec, lam: float, rule: Rule) -> torch.Tensor:
    network = build(topology, FOLDED)
    weights = weights_at(layers, lam, rule)
    load_weights(network, {name: torch.from_numpy(np.asarray(array)) for name, array in weights.items()})
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(images)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_channel_of_every_layer_belongs_to_one_group(arch: str) -> None:
    """But for the images' and the classes'."""
    topology = spec(arch, width=8)
    shapes = {
        name.removesuffix(".weight"): parameter.shape
        for name, parameter in build(topology, FOLDED).named_parameters()
        if name.endswith(".weight")
    }
    groups = list(channel_groups(topology))
    assert len({group.name for group in groups}) == len(groups)
    written = [(layer, group.size) for group in groups for layer in (*group.writers, *group.norms)]
    read = [(layer, group.size) for group in groups for layer in group.readers]
    assert sorted(written) == sorted((name, shape[0]) for name, shape in shapes.items() if name != "head")
    assert sorted(read) == sorted((name, shape[1]) for name, shape in shapes.items() if shape[1:] and name != "stem")
    assert {name for group in groups for name in group.norms} == {name for name in shapes if not shapes[name][1:]}


@pytest.mark.parametrize("rule", typing.get_args(Rule))
@pytest.mark.parametrize("arch", ["resnet8", "resnet14", "resnet18", "wrn-16-8", "wrn-40-2"])
def test_the_narrowed_network_computes_what_the_masked_one_does(arch: str, rule: Rule) -> None:
    topology = spec(arch, width=8)
    layers = cut_layers(topology)
    narrow, narrow_topology = narrowed(layers, topology)
    assert narrow["blocks.1.conv2"].theta.size * 4 == layers["blocks.1.conv2"].theta.size
    for lam in LAMBDAS:
        masked = logits(layers, topology, lam, rule)
        torch.testing.assert_close(logits(narrow, narrow_topology, lam, rule), masked, atol=1e-5, rtol=1e-5)
        assert masked.std(dim=0).max() > 1e-3, "another image gives other logits"


def test_a_projection_stays_where_it_no_longer_changes_the_width() -> None:
    """Of the stem's 8 channels all are kept, of the first stage's 16 as many."""
    topology = spec("wrn-40-2", width=8)
    layers = cut_layers(topology, 0.5, multiple=8)
    narrow, narrow_topology = narrowed(layers, topology)
    assert narrow_topology.widths is not None
    assert narrow_topology.widths.streams == (8, 8, 16, 32)
    assert narrow["blocks.0.shortcut"].theta.shape == (8, 8, 1, 1)
    torch.testing.assert_close(
        logits(narrow, narrow_topology, 0.5, "interpolate"),
        logits(layers, topology, 0.5, "interpolate"),
        atol=1e-5,
        rtol=1e-5,
    )


def test_what_is_left_is_dense_and_says_where_it_was() -> None:
    topology = spec("resnet8", width=8)
    layers = cut_layers(topology)
    narrow, narrow_topology = narrowed(layers, topology)
    assert narrow_topology.widths == Widths(streams=(4, 8, 16), inner=(4, 8, 16))
    assert narrow_topology.title == "resnet8, width 8, narrowed to 4, 8, 16, inside blocks 4, 8, 16"
    for name, layer in narrow.items():
        assert layer.mask.all()
        assert layer.drawn.shape == layers[name].mask.shape
        for field in ("theta", "noise"):
            np.testing.assert_array_equal(getattr(layers[name], field)[layer.drawn], getattr(layer, field).reshape(-1))
        assert len(layer.gain_adv) == len(layer.theta)


def test_a_group_that_stays_whole_leaves_its_layers_alone() -> None:
    """At a share of 0.9 in multiples of 2, only the widest groups lose channels."""
    topology = spec("resnet8", width=8)
    layers = cut_layers(topology, 0.9)
    narrow, narrow_topology = narrowed(layers, topology)
    assert narrow_topology.widths == Widths(streams=(8, 16, 30), inner=(8, 16, 30))
    assert narrow["stem"] is layers["stem"]
    assert narrow["stem"].drawn is None
    torch.testing.assert_close(
        logits(narrow, narrow_topology, 0.5, "interpolate"), logits(layers, topology, 0.5, "interpolate")
    )


def test_a_network_without_a_cut_stays_what_it_is() -> None:
    topology = spec("resnet8", width=8)
    layers = {name: replace(layer, mask=np.ones_like(layer.mask)) for name, layer in cut_layers(topology).items()}
    same, same_topology = narrowed(layers, topology)
    assert same == layers
    assert same_topology is topology


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_narrowed_topology_survives_json(arch: str) -> None:
    _, topology = narrowed(cut_layers(spec(arch, width=8)), spec(arch, width=8))
    assert topology.widths is not None
    assert ModelSpec.model_validate_json(topology.model_dump_json()) == topology
    assert sum(p.numel() for p in build(topology, FOLDED).parameters()) < 0.3 * sum(
        p.numel() for p in build(spec(arch, width=8), FOLDED).parameters()
    )


@pytest.mark.parametrize(
    "widths",
    [
        {"streams": (4, 8), "inner": (4, 8, 16)},
        {"streams": (4, 8, 16), "inner": (4, 8, 16, 16)},
        {"streams": (9, 8, 16), "inner": (4, 8, 16)},
        {"streams": (4, 8, 16), "inner": (4, 8, 33)},
        {"streams": (0, 8, 16), "inner": (4, 8, 16)},
        {"streams": (4, 8, 16)},
    ],
)
def test_widths_that_no_such_network_has_are_refused(widths: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        spec("resnet8", width=8, widths=widths)
