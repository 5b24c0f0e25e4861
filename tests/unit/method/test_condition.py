"""Conditioned networks: what they were at lambda 0, affine in lambda, and equal to what they fold into."""

import copy
from typing import Any

import pytest
import torch
from fixtures.strangers import Stranger, stranger
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.method.batchnorm import DualNorm, gains_and_biases
from floats_edge.method.condition import (
    condition,
    conditioned_layers,
    fold,
    folded,
    load_weights,
    ordinary_layers,
    unfilled,
)
from floats_edge.method.conditioning import conditioned_weights
from floats_edge.method.fold import weights_at
from floats_edge.method.knob import Knob
from floats_edge.method.layers import ConditionedLayer, Scale
from floats_edge.method.noise import standard_normal
from floats_edge.method.plan import plan

EXAMPLE = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(seed: int) -> tuple[nn.Module, Knob]:
    """A conditioned network as training might leave it: both ends apart, masks, alphas of either sign."""
    network = stranger(seed)
    knob = condition(network, EXAMPLE, alpha=0.1, noise_seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, DualNorm):
            module.adv.running_mean.normal_(generator=generator)
            module.adv.running_var.uniform_(0.5, 2, generator=generator)
        if isinstance(module, ConditionedLayer):
            module.weight.alpha.data.uniform_(-0.5, 0.5, generator=generator)
            module.weight.set_mask(torch.rand(module.weight.theta.shape, generator=generator) < 0.7)
    return network.eval(), knob


def logits(network: nn.Module, images: Tensor = EXAMPLE) -> Tensor:
    with torch.no_grad():
        return network.eval()(images)


def test_lambda_0_computes_exactly_what_the_network_did() -> None:
    network = stranger()
    before = logits(network)
    knob = condition(network, EXAMPLE)
    assert torch.equal(logits(network), before)
    with knob.at(1.0):
        assert not torch.allclose(logits(network), before)
    assert torch.equal(logits(network), before), "the knob is turned back"


def test_a_conditioned_network_trains_as_the_network_did() -> None:
    alone, network = stranger(), stranger()
    condition(network, EXAMPLE)
    labels = torch.tensor([0, 1, 2, 3])
    for each in (alone, network):
        torch.manual_seed(1)  # of dropout
        nn.functional.cross_entropy(each.train()(EXAMPLE), labels).backward()
    wanted = alone.down.weight.grad
    assert wanted is not None
    got = conditioned_layers(network)["down"].weight.theta.grad
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(conditioned_layers(network)["stem"].norm.clean.running_mean, alone.stem_norm.running_mean)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0]))
def test_an_end_of_the_knob_is_what_it_folds_into(seed: int, lam: float) -> None:
    network, knob = trained(seed)
    with knob.at(lam):
        wanted = logits(network)
    got = logits(folded(network, lam))
    assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.max() - wanted.min())


def test_a_folded_network_is_ordinary_layers_of_the_same_names() -> None:
    network, _ = trained(0)
    plain = folded(network, 0.5)
    assert type(plain) is Stranger
    assert {type(module) for module in plain.modules()} & {ConditionedLayer, DualNorm} == set()
    assert type(plain.stem) is nn.Conv2d
    assert plain.deep.padding_mode == "reflect"
    assert plain.deep.groups == 8
    assert type(plain.stem_norm) is nn.Identity
    assert set(conditioned_layers(network)) <= {name for name, _ in plain.named_modules()}


def test_what_the_condition_did_not_reach_is_shared_with_the_folded_network() -> None:
    network, _ = trained(0)
    plain = unfilled(network, conditioned_layers(network))
    assert plain.layer_norm.weight is network.layer_norm.weight
    assert not plain.training
    assert not any(p.requires_grad for n, p in plain.named_parameters() if not n.startswith("layer_norm"))


def test_a_copy_of_a_network_has_a_knob_of_its_own() -> None:
    network, knob = trained(0)
    before = logits(network)
    twin = copy.deepcopy(network)
    with knob.at(1.0):
        assert torch.equal(logits(twin), before)


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan")])
def test_the_knob_takes_lambdas_in_0_to_1(lam: float) -> None:
    _, knob = trained(0)
    with pytest.raises(ValueError, match="lambda must be a number"), knob.at(lam):
        pass


def test_no_random_number_is_drawn() -> None:
    network = stranger()
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    condition(network, EXAMPLE)
    assert torch.equal(torch.rand(1), wanted)


class PastItsPlace(nn.Module):
    """Runs a layer that it also holds where no walk through its modules finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self._hidden = [self.conv]

    def forward(self, images: Tensor) -> Tensor:
        return self._hidden[0](images).mean((2, 3))


class ReadsWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3)) + self.conv.weight.abs().sum()


class LearnsFromTheStatistics(nn.Module):
    """A pair that is none in effect: what the BatchNorm remembers is used elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, images: Tensor) -> Tensor:
        scale = getattr(self.norm, "eps", 7.0)
        return self.norm(self.conv(images)).mean((2, 3)) * (1 + scale)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (PastItsPlace(), "conv is called past its place"),
        (ReadsWeights(), "does not run"),
        (LearnsFromTheStatistics(), "computes something else at lambda 0"),
    ],
)
def test_a_network_that_fails_a_gate_is_refused_as_a_whole(network: nn.Module, said: str) -> None:
    before = logits(network)
    modules = dict(network.named_modules())
    with pytest.raises(NetworkError, match=said):
        condition(network, EXAMPLE)
    assert dict(network.named_modules()) == modules
    assert torch.equal(logits(network), before)
    assert not conditioned_layers(network)


def without_means(norms: list[nn.BatchNorm2d | None], ones: Any, zeros: Any) -> tuple[Tensor, Tensor]:
    """What a BatchNorm does, wrong."""
    gain, bias = gains_and_biases(norms, ones, zeros)
    return gain, 0 * bias


def test_a_wrong_fold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floats_edge.method.stack.gains_and_biases", without_means)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
    network[1].running_mean.normal_()
    with pytest.raises(NetworkError, match=r"at lambda 0 the folded network is off by .* of the logits' range"):
        condition(network, EXAMPLE)


def test_a_head_that_begins_with_zeros_can_be_conditioned() -> None:
    network = stranger()
    nn.init.zeros_(network.classifier.weight)
    condition(network, EXAMPLE)
    assert not conditioned_layers(network)["classifier"].weight.theta.any(), "it still begins so"


def test_a_head_that_begins_with_zeros_hides_no_wrong_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floats_edge.method.stack.gains_and_biases", without_means)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
    network[1].running_mean.normal_()
    nn.init.zeros_(network[3].weight)
    with pytest.raises(NetworkError, match="folded network is off"):
        condition(network, EXAMPLE)
    assert not network[3].weight.any(), "it is as it was"


def test_a_network_of_other_layers_is_refused_with_its_plan() -> None:
    network = nn.Sequential(nn.Flatten(), nn.LayerNorm(3 * 16 * 16))
    with pytest.raises(NetworkError, match=r"(?s)no layer of the network can be conditioned.*LayerNorm"):
        condition(network, EXAMPLE)


class NormAndReLU(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


def parts(norm: NormAndReLU) -> tuple[nn.BatchNorm2d, nn.Module]:
    plain = nn.BatchNorm2d(norm.num_features, norm.eps)
    plain.load_state_dict(norm.state_dict())
    return plain, nn.ReLU()


def test_a_layer_of_ones_own_can_be_taught() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        lone = nn.Sequential(nn.ReLU(), NormAndReLU(4))
        return nn.Sequential(nn.Conv2d(3, 4, 3), NormAndReLU(4), lone, nn.Flatten(), nn.Linear(4 * 14 * 14, 5))

    taught = network()
    before = logits(taught)
    knob = condition(taught, EXAMPLE, register={NormAndReLU: parts})
    assert [layer.kind for layer in knob.plan.layers] == ["paired", "norm", "bare"]
    assert torch.equal(logits(taught), before)
    untaught = condition(network(), EXAMPLE)
    assert [layer.kind for layer in untaught.plan.layers] == ["bare", "untouched", "untouched", "bare"]


def test_every_layer_gets_the_noise_of_its_place() -> None:
    network = stranger()
    condition(network, EXAMPLE, noise_seed=9)
    names = list(conditioned_layers(network))
    for name, weight in conditioned_weights(network).items():
        wanted = standard_normal(9, names.index(name), tuple(weight.theta.shape))
        assert torch.equal(weight.eta, torch.from_numpy(wanted))


def test_clean_and_attacked_images_have_statistics_of_their_own() -> None:
    network = stranger().train()
    knob = condition(network, EXAMPLE)
    norm = network.stem.norm
    network(EXAMPLE)
    assert (int(norm.clean.num_batches_tracked), int(norm.adv.num_batches_tracked)) == (1, 0)
    with knob.at(0.1):
        network(EXAMPLE)
    assert (int(norm.clean.num_batches_tracked), int(norm.adv.num_batches_tracked)) == (1, 1)


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_gradient_of_a_strided_projection(channels: int) -> None:
    """In channels-last memory, where oneDNN's own is wrong or crashes for few channels."""
    network = nn.Sequential(nn.Conv2d(channels, 8, 1, stride=2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(8, channels, 56, 56, generator=torch.Generator().manual_seed(0))
    condition(network, images[:1])
    network(images.contiguous(memory_format=torch.channels_last)).sum().backward()
    wanted = images.double()[:, :, ::2, ::2].mean((2, 3)).sum(0).expand(8, channels)
    got = conditioned_layers(network)["0"].weight.theta.grad
    assert got is not None
    torch.testing.assert_close(got[:, :, 0, 0].double(), wanted, rtol=1e-4, atol=1e-4)


def test_an_ordinary_network_folds_as_it_is() -> None:
    """One that is trained without a condition; its layers stay its own."""
    network = stranger()
    layers = ordinary_layers(network, plan(network, EXAMPLE))
    plain = unfilled(network, layers)
    load_weights(plain, weights_at(fold(layers, "interpolate"), 0.3))
    assert type(network.stem_norm) is nn.BatchNorm2d
    assert type(plain.lone_norm) is Scale
    wanted, got = logits(network), logits(plain)
    assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.max() - wanted.min())


def test_a_scale_is_rounded_once() -> None:
    torch.manual_seed(0)
    scale, x = Scale(), torch.randn(2, 3, 4, 4).bfloat16()
    scale.weight, scale.bias = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
    exact = x.float() * scale.weight.view(-1, 1, 1) + scale.bias.view(-1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scale(x), exact.bfloat16())
