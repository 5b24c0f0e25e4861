"""Channels: how many are kept, which, and that a network without the others computes what it did with them at zero."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from floats_edge.method.channel_groups import channel_groups
from floats_edge.method.channels import ChannelMasks, importance, kept_count, strongest
from floats_edge.method.condition import condition, conditioned_layers, draw_noise, unfilled
from floats_edge.method.conditioning import ConditionedWeight, resample_noise
from floats_edge.method.knob import Knob

IMAGES = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Stem, one block and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.norm2 = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[1].mean((2, 3)))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inside the block, and after it."""
        x = torch.relu(self.stem_norm(self.stem(x)))
        inner = torch.relu(self.norm1(self.conv1(x)))
        return inner, torch.relu(self.norm2(self.conv2(inner)) + x)


class PreActivated(nn.Module):
    """Stem, one block that normalises before it convolves, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 6, 3, padding=1, bias=False)
        self.last = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[-1].mean((2, 3)))

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The stream after the stem, after the block, and each normalised."""
        before = self.stem(x)
        normalized = torch.relu(self.norm(before))
        after = before + self.conv2(torch.relu(self.norm1(self.conv1(normalized))))
        return before, normalized, after, torch.relu(self.last(after))


def knob_of(network: nn.Module) -> Knob:
    return network.stem.knob


def conditioned(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = kind()
    condition(network, IMAGES)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)
    return network


@pytest.fixture
def network() -> nn.Module:
    return conditioned(Residual)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        images, labels = torch.rand(8, 3, 6, 6), torch.randint(4, (8,))
        for lam in (0.0, 1.0):
            with knob_of(network).at(lam):
                nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()


def subject(network: nn.Module) -> tuple[ChannelMasks, torch.optim.SGD]:
    """Keeps 4 of the stream's 6 channels and 2 of the 5 inside the block."""
    layers = conditioned_layers(network)
    channels = channel_groups(unfilled(network, layers), layers, IMAGES)
    masks = ChannelMasks(layers, channels, [{6: 4, 5: 2}[len(group.classes)] for group in channels.groups])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    return masks, optimizer


@given(st.integers(1, 512), st.floats(0.01, 1), st.integers(1, 32))
@example(100, 0.07, 1)
def test_the_kept_number_is_the_share_rounded_up_to_the_multiple(size: int, density: float, multiple: int) -> None:
    count = kept_count(size, density, multiple)
    assert 1 <= count <= size
    assert count == size or count % multiple == 0
    assert count >= size * density - 1e-6
    assert count - multiple < size * density


def test_a_share_that_is_a_whole_number_is_not_rounded_up() -> None:
    """In binary 0.07 * 100 is a little more than 7."""
    assert 0.07 * 100 > 7
    assert kept_count(100, 0.07, 1) == 7


def test_importance_by_hand() -> None:
    weight = torch.zeros(3, 2, 1, 1)
    weight[0, :, 0, 0] = torch.tensor([3.0, -4.0])
    weight[1, 0, 0, 0] = 1
    scores = importance(weight, torch.tensor([0.5, -2.0, 9.0]), torch.tensor([-0.5, 0.25, 9.0]))
    assert scores.tolist() == [5.0, 2.25, 0.0]


def test_of_equal_channels_the_first_is_kept() -> None:
    assert strongest(torch.tensor([1.0, 2.0, 1.0, 1.0]), 2).tolist() == [True, True, False, False]


def make_stand_out(network: nn.Module, one: torch.nn.Module, another: torch.nn.Module) -> None:
    """Channels 1 and 4 of the stream by a weight that writes it, 0 and 2 by BatchNorms."""
    with torch.no_grad():
        network.stem.weight.theta.fill_(0.01)
        network.conv2.weight.theta.fill_(0.01)
        network.stem.weight.theta[1] = 1.0
        network.conv2.weight.theta[4] = 1.0
        one.adv.weight[0] = -50.0
        another.clean.weight[2] = 50.0


def kept(weight: ConditionedWeight) -> list[int]:
    """Which output channels of a weight are left."""
    return weight.drawn.flatten(1).any(1).nonzero().flatten().tolist()


def test_importance_of_the_stream_is_summed_over_what_writes_it(network: nn.Module) -> None:
    masks, optimizer = subject(network)
    with torch.no_grad():
        for conv in (network.stem, network.conv2):
            for norm in (conv.norm.clean, conv.norm.adv):
                norm.weight.fill_(1.0)
    make_stand_out(network, network.stem.norm, network.conv2.norm)
    masks.cut(optimizer)
    assert kept(network.stem.weight) == [0, 1, 2, 4]


def test_what_is_normalised_apart_counts_by_every_batchnorm_that_it_is_read_through() -> None:
    network = conditioned(PreActivated)
    masks, optimizer = subject(network)
    with torch.no_grad():
        for lone in (network.norm, network.last):
            for end in (lone.norm.clean, lone.norm.adv):
                end.weight.fill_(1.0)
    make_stand_out(network, network.norm.norm, network.last.norm)
    masks.cut(optimizer)
    assert kept(network.stem.weight) == kept(network.conv2.weight) == [0, 1, 2, 4]


def test_a_cut_takes_all_that_a_channel_has(network: nn.Module) -> None:
    """And its momentum; the optimiser goes on with what is left."""
    masks, optimizer = subject(network)
    train(network, optimizer)
    momenta = {name: optimizer.state[p]["momentum_buffer"] for name, p in network.named_parameters()}
    before = {name: tensor.detach().clone() for name, tensor in tensors(network).items()}
    masks.cut(optimizer)
    after = tensors(network)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(map(id, network.parameters()))
    stream, inner = kept(network.stem.weight), kept(network.conv1.weight)
    assert (len(stream), len(inner)) == (4, 2)
    everything = {"stem": (stream, [0, 1, 2]), "conv1": (inner, stream), "conv2": (stream, inner)}
    for layer, axes in {**everything, "head": ([0, 1, 2, 3], stream)}.items():
        for name in (name for name in before if name.startswith(f"{layer}.")):
            left = np.ix_(*axes[: before[name].ndim])
            torch.testing.assert_close(after[name], before[name][left] if left else before[name], rtol=0, atol=0)
            if name in momenta:
                momentum = optimizer.state[after[name]]["momentum_buffer"]
                torch.testing.assert_close(momentum, momenta[name][left] if left else momenta[name], rtol=0, atol=0)


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, the noise among them, but for where it was drawn."""
    found = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor for name, tensor in found.items() if not name.endswith("drawn")}


@pytest.mark.parametrize("kind", [Residual, PreActivated])
def test_it_computes_what_it_did_with_the_cut_channels_at_zero(kind: type[nn.Module]) -> None:
    """At full width, as a checkpoint keeps it, they are zero at every lambda, before and behind every BatchNorm."""
    network = conditioned(kind)
    masks, optimizer = subject(network)
    train(network, optimizer)
    whole = copy.deepcopy(network)
    masks.cut(optimizer)
    train(network, optimizer)
    state = {name: masks.kept.widened(name, tensor.numpy()) for name, tensor in network.state_dict().items()}
    whole.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    images = torch.rand(4, 3, 6, 6)
    network.eval()
    whole.eval()
    for lam in (0.0, 0.4, 1.0):
        with knob_of(network).at(lam), knob_of(whole).at(lam):
            torch.testing.assert_close(network(images), whole(images))
            for narrow, wide in zip(network.features(images), whole.features(images), strict=True):
                left = kept(network.conv1.weight if wide.shape[1] == 5 else network.stem.weight)
                torch.testing.assert_close(wide[:, left], narrow)
                assert not wide[:, [c for c in range(wide.shape[1]) if c not in left]].any()
            assert bool(narrow.any())


@pytest.mark.parametrize(
    "draw",
    [lambda network: draw_noise(network, 3), lambda network: resample_noise(network, torch.Generator().manual_seed(3))],
    ids=["frozen", "resampled"],
)
def test_the_noise_that_is_left_is_that_of_the_whole_layer(network: nn.Module, draw: Callable) -> None:
    masks, optimizer = subject(network)
    whole = copy.deepcopy(network)
    masks.cut(optimizer)
    for one in (network, whole):
        draw(one)
    for name in ("stem", "conv1", "conv2", "head"):
        weight, other = network.get_submodule(name).weight, whole.get_submodule(name).weight
        assert torch.equal(weight.eta.flatten(), other.eta[weight.drawn])


def test_noise_is_taken_without_a_look_at_values(network: nn.Module) -> None:
    """Which would make the host wait for a GPU: tensors on ``meta`` have none."""
    masks, optimizer = subject(network)
    masks.cut(optimizer)
    weight = network.conv1.weight.to("meta")
    weight.set_noise(torch.empty(weight.whole.shape, device="meta"))
