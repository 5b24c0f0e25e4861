"""Folding against the network it folds, with random BatchNorm statistics, masks, alphas and noise."""

import math

import numpy as np
import pytest
import torch
from bench.calls import Calls
from fixtures.networks import IMAGES, conditioned, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from floats_edge.method.condition import condition, conditioned_layers, fold, folded, load_folded, unfilled
from floats_edge.method.conditioning import conditioned_weights
from floats_edge.method.fold import (
    AffineLayers,
    Ends,
    Rule,
    Weights,
    affine,
    check_lambda,
    clean_weights,
    end_weights,
    masked_noise,
    weights_at,
)
from floats_edge.method.knob import Knob
from floats_edge.method.layers import Conditioned, ConditionedNorm
from floats_edge.method.noise import standard_normal

NAMES = pytest.mark.parametrize("name", ["resnet8", "wrn-16-8"])
SEEDS = st.integers(0, 2**31)


def network_of(seed: int, name: str = "resnet8") -> tuple[nn.Module, Knob]:
    """A FLOAT network as training might leave it."""
    network, knob = trained(name, 4 if name == "resnet8" else 2, seed)
    generator = torch.Generator().manual_seed(seed)
    for weight in conditioned_weights(network).values():
        weight.set_mask(torch.rand(weight.theta.shape, generator=generator) < 0.6)
    return network, knob


def layers_of(seed: int, rule: Rule = "interpolate", name: str = "resnet8") -> AffineLayers:
    return fold(conditioned_layers(network_of(seed, name)[0]), rule)


def mixed() -> nn.Module:
    """A FLOAT network of a convolution with a bias and a BatchNorm, a lone BatchNorm without parameters, and a head."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair, lone = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.BatchNorm2d(4, affine=False, eps=1e-3)
        network = nn.Sequential(*pair, nn.ReLU(), lone, nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
        condition(network, IMAGES)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 3)
    return network


def gain_and_bias(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = (norm.weight.detach(), norm.bias.detach()) if norm.affine else (1.0, 0.0)
    gain = weight / (norm.running_var + norm.eps).sqrt()
    return gain, bias - norm.running_mean * gain


def ends_of(layer: Conditioned) -> Ends:
    """One layer by itself."""
    if isinstance(layer, ConditionedNorm):
        (gain_clean, bias_clean), (gain_adv, bias_adv) = map(gain_and_bias, (layer.norm.clean, layer.norm.adv))
        one = torch.ones_like(gain_clean)
        return Ends(one, one > 0, one * 0, torch.zeros(()), gain_clean, gain_adv, bias_clean, bias_adv)
    weight, bias = layer.weight, layer.bias
    theta = weight.theta.detach()
    nothing = torch.ones(len(theta)), torch.zeros(len(theta))
    norms = (layer.norm.clean, layer.norm.adv) if layer.norm is not None else ()
    (gain_clean, bias_clean), (gain_adv, bias_adv) = map(gain_and_bias, norms) if norms else (nothing, nothing)
    if bias is not None:
        bias_clean, bias_adv = bias_clean + bias.detach() * gain_clean, bias_adv + bias.detach() * gain_adv
    scale = weight.alpha.detach() * weight.sigma()
    return Ends(theta, weight.mask, weight.mask * weight.eta, scale, gain_clean, gain_adv, bias_clean, bias_adv)


def by_rule(ends: Ends, lam: float, rule: Rule) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a layer in float64, as the rule says it."""

    def folded_by(gain: torch.Tensor, noise_lam: float) -> torch.Tensor:
        weight = ends.theta.double() + noise_lam * ends.noise_scale.double() * ends.noise
        return weight * gain.double().reshape(-1, *[1] * (weight.ndim - 1))

    clean = folded_by(ends.gain_clean, 0.0), ends.bias_clean.double()
    if lam == 0:
        return clean
    if rule == "paper":
        return folded_by(ends.gain_adv, lam), ends.bias_adv.double()
    adv = folded_by(ends.gain_adv, 1.0), ends.bias_adv.double()
    weight, bias = ((1 - lam) * at_0 + lam * at_1 for at_0, at_1 in zip(clean, adv, strict=True))
    return weight, bias


def assert_folds(network: nn.Module, knob: Knob, lam: float, rule: Rule) -> None:
    images = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), knob.at(lam):
        wanted = network(images)
    got = folded(network, lam, rule)(images)
    assert ((got - wanted).abs().max() / (wanted.max() - wanted.min())).item() < 1e-5


@settings(max_examples=5)
@given(seed=SEEDS)
@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@pytest.mark.parametrize("lam", [0.0, 1.0])
@NAMES
def test_folded_network_computes_the_same_at_both_ends(name: str, seed: int, rule: Rule, lam: float) -> None:
    assert_folds(*network_of(seed, name), lam, rule)


@settings(max_examples=10)
@given(seed=SEEDS, lam=st.floats(0, 1))
@NAMES
def test_by_the_papers_rule_it_computes_the_same_in_between(name: str, seed: int, lam: float) -> None:
    assert_folds(*network_of(seed, name), lam, "paper")


@settings(max_examples=10)
@given(seed=SEEDS, lam=st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@NAMES
def test_the_vectors_give_the_weights_of_the_rule(name: str, seed: int, lam: float, rule: Rule) -> None:
    """Up to rounding, which is that of the largest number of a sum."""
    layers = conditioned_layers(network_of(seed, name)[0])
    got: Weights = weights_at(fold(layers, rule), lam)
    for layer_name, layer in layers.items():
        ends = ends_of(layer)
        weight, bias = by_rule(ends, lam, rule)
        gain = torch.maximum(ends.gain_clean.abs(), ends.gain_adv.abs())
        largest = (ends.theta.abs() + ends.noise_scale.abs() * ends.noise.abs()).transpose(0, -1) * gain
        assert bool(((got[f"{layer_name}.weight"] - weight).abs() <= 1e-6 * largest.transpose(0, -1)).all())
        largest = torch.maximum(ends.bias_clean.abs(), ends.bias_adv.abs())
        assert bool(((got[f"{layer_name}.bias"] - bias).abs() <= 1e-6 * largest).all())


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
def test_at_lambda_0_they_are_the_clean_ones_to_the_bit(rule: Rule) -> None:
    layers = conditioned_layers(network_of(0)[0])
    got = weights_at(fold(layers, rule), 0.0)
    for name, layer in layers.items():
        ends = ends_of(layer)
        assert torch.equal(got[f"{name}.weight"], (ends.theta.transpose(0, -1) * ends.gain_clean).transpose(0, -1))
        assert torch.equal(got[f"{name}.bias"], ends.bias_clean)


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@pytest.mark.parametrize("lam", [0.0, 0.37, 1.0])
@pytest.mark.parametrize("name", ["resnet8", "wrn-16-8", "mixed"])
def test_layers_folded_together_have_the_bits_of_each_by_itself(name: str, lam: float, rule: Rule) -> None:
    network = mixed() if name == "mixed" else network_of(0, name)[0]
    layers = conditioned_layers(network)
    together, plain = weights_at(fold(layers, rule), lam), dict(folded(network, lam, rule).named_parameters())
    for layer_name, layer in layers.items():
        for key, wanted in weights_at({layer_name: affine(ends_of(layer), rule)}, lam).items():
            assert torch.equal(together[key], wanted)
            assert torch.equal(plain[key], wanted)


def test_a_fold_calls_torch_a_few_times_for_each_layer() -> None:
    """On a GPU a call costs more than what it computes."""
    layers = conditioned_layers(network := conditioned("resnet18")[0])
    plain = unfilled(network, layers)
    with Calls() as calls:
        load_folded(plain, layers, "interpolate", 1.0)
    assert calls.count <= 5 * len(layers) + 60


@NAMES
def test_a_layers_position_is_the_index_of_its_noise(name: str) -> None:
    """Which is what a bundle draws its noise by, in every language."""
    for index, layer in enumerate(layers_of(0, name=name).values()):
        wanted = masked_noise(0, index, layer.mask.numpy()) if layer.theta.ndim > 1 else np.zeros(layer.theta.shape)
        np.testing.assert_array_equal(layer.noise.numpy(), wanted)


@settings(max_examples=10)
@given(seed=SEEDS, lam=st.floats(0, 1))
def test_interpolation_is_the_straight_line_between_the_ends(seed: int, lam: float) -> None:
    layers = layers_of(seed)
    ends = weights_at(layers, 0.0), weights_at(layers, 1.0)
    for name, weight in weights_at(layers, lam).items():
        wanted = (1 - lam) * ends[0][name].double() + lam * ends[1][name].double()
        torch.testing.assert_close(weight.double(), wanted, rtol=1e-5, atol=1e-5)


@settings(max_examples=10)
@given(seed=SEEDS, lam=st.floats(0, 1))
@pytest.mark.parametrize("rule", ["interpolate", "paper"])
def test_no_weight_is_larger_than_at_an_end(seed: int, lam: float, rule: Rule) -> None:
    """Of each entry, and so of the largest of a channel: what holds at the ends holds at every lambda."""
    layers = layers_of(seed, rule)
    ends = end_weights(layers)
    for name, weight in weights_at(layers, lam).items():
        largest = torch.stack([end[name].abs() for end in ends]).amax(0)
        assert bool((weight.abs() <= largest * (1 + 1e-5) + 1e-6).all()), name


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
def test_each_end_is_needed(rule: Rule) -> None:
    """Some channel peaks at each: with one of them left out, int8 would clip."""
    ends = [
        {name: weight.abs().flatten(1).amax(1) for name, weight in end.items() if weight.ndim > 1}
        for end in end_weights(layers_of(0, rule))
    ]
    if rule == "interpolate":  # the line starts at the clean weights
        ends = [ends[0], ends[2]]
    for index, end in enumerate(ends):
        others = [other for i, other in enumerate(ends) if i != index]
        assert any(bool((end[name] > torch.stack([other[name] for other in others]).amax(0)).any()) for name in end)


@pytest.mark.parametrize("rule", ["interpolate", "paper"])
@pytest.mark.parametrize("lam", [0.0, 0.37, 1.0])
def test_numpy_gives_the_same_bits_as_torch(rule: Rule, lam: float) -> None:
    layers = layers_of(0, rule)
    on_board = weights_at({name: layer.numpy() for name, layer in layers.items()}, lam)
    for name, weight in weights_at(layers, lam).items():
        assert on_board[name].dtype == np.float32
        np.testing.assert_array_equal(on_board[name], weight.numpy())


def test_the_rules_agree_at_lambda_0_and_differ_in_between() -> None:
    interpolated, papers = layers_of(0, "interpolate"), layers_of(0, "paper")
    for name, weight in clean_weights(papers).items():
        assert torch.equal(weight, weights_at(papers, 0.0)[name])
        assert torch.equal(weight, weights_at(interpolated, 0.0)[name])
    assert not torch.allclose(weights_at(papers, 0.5)["stem.weight"], weights_at(interpolated, 0.5)["stem.weight"])


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
        weights_at(layers_of(0), 1.5)
