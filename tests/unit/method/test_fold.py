"""Folding against the network it folds, with random BatchNorm statistics, masks, alphas and noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from floats_edge.method.batchnorm import DualBatchNorm2d
from floats_edge.method.conditioning import conditioned_weights, draw_noise
from floats_edge.method.fold import (
    Rule,
    check_lambda,
    clean_weights,
    end_weights,
    fold_network,
    masked_noise,
    weights_at,
)
from floats_edge.method.noise import standard_normal
from floats_edge.models.build import build, load_weights
from floats_edge.models.layers import FLOAT, FOLDED
from floats_edge.models.spec import ModelSpec

SPEC = ModelSpec(
    arch="resnet8", width=4, stem_stride=1, image_shape=(3, 8, 8), classes=5, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
)
WIDE = SPEC.model_copy(update={"arch": "wrn-16-8", "width": 2})
SPECS = pytest.mark.parametrize("spec", [SPEC, WIDE], ids=["resnet", "wide resnet"])
SEEDS = st.integers(0, 2**31)


def network_of(seed: int, spec: ModelSpec = SPEC) -> nn.Module:
    """A FLOAT network as training might leave it."""
    generator = torch.Generator().manual_seed(seed)
    network = build(spec, FLOAT, seed).eval()
    draw_noise(network, seed)
    for weight in conditioned_weights(network).values():
        weight.alpha.data.uniform_(-0.5, 0.5, generator=generator)
        weight.set_mask(torch.rand(weight.theta.shape, generator=generator) < 0.6)
    for module in network.modules():
        if isinstance(module, DualBatchNorm2d):
            for norm in (module.clean, module.adv):
                norm.weight.data.uniform_(-1.5, 1.5, generator=generator)
                norm.bias.data.normal_(generator=generator)
                norm.running_mean.normal_(generator=generator)
                norm.running_var.uniform_(0.2, 3, generator=generator)
    return network


def assert_folds(network: nn.Module, spec: ModelSpec, lam: float, rule: Rule) -> None:
    images = torch.rand(16, *spec.image_shape, generator=torch.Generator().manual_seed(1))
    folded = build(spec, FOLDED)
    load_weights(folded, weights_at(fold_network(network), lam, rule))
    with torch.no_grad():
        wanted, got = network(images, lam), folded(images)
    assert ((got - wanted).abs().max() / (wanted.max() - wanted.min())).item() < 1e-5


@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@pytest.mark.parametrize("lam", [0.0, 1.0])
@SPECS
def test_folded_network_computes_the_same_at_both_ends(spec: ModelSpec, seed: int, rule: Rule, lam: float) -> None:
    assert_folds(network_of(seed, spec), spec, lam, rule)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, lam=st.floats(0, 1))
@SPECS
def test_by_the_papers_rule_it_computes_the_same_in_between(spec: ModelSpec, seed: int, lam: float) -> None:
    assert_folds(network_of(seed, spec), spec, lam, "paper")


@SPECS
def test_a_layers_position_is_the_index_of_its_noise(spec: ModelSpec) -> None:
    """Which is what a bundle draws its noise by, in every language."""
    for index, layer in enumerate(fold_network(network_of(0, spec)).values()):
        wanted = masked_noise(0, index, layer.mask.numpy()) if layer.theta.ndim > 1 else np.zeros(layer.theta.shape)
        np.testing.assert_array_equal(layer.noise.numpy(), wanted)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, lam=st.floats(0, 1))
def test_interpolation_is_the_straight_line_between_the_ends(seed: int, lam: float) -> None:
    layers = fold_network(network_of(seed))
    ends = weights_at(layers, 0.0, "interpolate"), weights_at(layers, 1.0, "interpolate")
    for name, weight in weights_at(layers, lam, "interpolate").items():
        wanted = (1 - lam) * ends[0][name].double() + lam * ends[1][name].double()
        torch.testing.assert_close(weight.double(), wanted, rtol=1e-5, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, lam=st.floats(0, 1))
@pytest.mark.parametrize("rule", ["interpolate", "paper"])
def test_no_weight_is_larger_than_at_an_end(seed: int, lam: float, rule: Rule) -> None:
    """Of each entry, and so of the largest of a channel: what holds at the ends holds at every lambda."""
    layers = fold_network(network_of(seed))
    ends = end_weights(layers, rule)
    for name, weight in weights_at(layers, lam, rule).items():
        largest = torch.stack([end[name].abs() for end in ends]).amax(0)
        assert bool((weight.abs() <= largest * (1 + 1e-5) + 1e-6).all()), name


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
def test_each_end_is_needed(rule: Rule) -> None:
    """Some channel peaks at each: with one of them left out, int8 would clip."""
    layers = fold_network(network_of(0))
    ends = [
        {name: weight.abs().flatten(1).amax(1) for name, weight in end.items() if weight.ndim > 1}
        for end in end_weights(layers, rule)
    ]
    if rule == "interpolate":  # the line starts at the clean weights
        ends = [ends[0], ends[2]]
    for index, end in enumerate(ends):
        others = [other for i, other in enumerate(ends) if i != index]
        assert any(bool((end[name] > torch.stack([other[name] for other in others]).amax(0)).any()) for name in end)


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@pytest.mark.parametrize("lam", [0.0, 0.37, 1.0])
def test_numpy_gives_the_same_bits_as_torch(rule: Rule, lam: float) -> None:
    layers = fold_network(network_of(0))
    on_board = weights_at({name: layer.numpy() for name, layer in layers.items()}, lam, rule)
    for name, weight in weights_at(layers, lam, rule).items():
        assert on_board[name].dtype == np.float32
        np.testing.assert_array_equal(on_board[name], weight.numpy())


def test_the_rules_agree_at_lambda_0_and_differ_in_between() -> None:
    layers = fold_network(network_of(0))
    for name, weight in clean_weights(layers).items():
        assert torch.equal(weight, weights_at(layers, 0.0, "paper")[name])
        assert torch.equal(weight, weights_at(layers, 0.0, "interpolate")[name])
    assert not torch.allclose(
        weights_at(layers, 0.5, "paper")["stem.weight"], weights_at(layers, 0.5, "interpolate")["stem.weight"]
    )


def test_noise_of_a_board_is_the_masked_draw() -> None:
    mask = np.random.default_rng(0).random((5, 3, 3, 3)) < 0.5
    np.testing.assert_array_equal(masked_noise(7, 4, mask), mask * standard_normal(7, 4, mask.shape))


@pytest.mark.parametrize("lam", [math.nan, math.inf, -math.inf, -0.01, 1.0001, "x"])
def test_check_lambda_rejects(lam: float) -> None:
    with pytest.raises(ValueError, match=r"lambda must be a number in \[0, 1\]|could not convert"):
        check_lambda(lam)


@pytest.mark.parametrize("lam", [0, 1, 0.25, np.float32(0.5)])
def test_check_lambda_accepts(lam: float) -> None:
    assert check_lambda(lam) == lam
    assert type(check_lambda(lam)) is float


def test_weights_at_checks_lambda() -> None:
    with pytest.raises(ValueError, match="lambda"):
        weights_at(fold_network(network_of(0)), 1.5, "paper")
