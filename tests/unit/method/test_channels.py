"""Channels: how many are kept, which, and that a cut one is zero and stays zero."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from floats_edge.method.channel_groups import channel_groups
from floats_edge.method.channels import ChannelMasks, importance, kept_count, strongest
from floats_edge.method.condition import condition, conditioned_layers, unfilled
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


def knob_of(network: nn.Module) -> Knob:
    return network.stem.knob


def convolutions(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in conditioned_layers(network).values() if hasattr(layer, "weight")]


@pytest.fixture
def network() -> Residual:
    torch.manual_seed(0)
    network = Residual()
    condition(network, IMAGES)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)
    return network


def train(network: nn.Module, masks: ChannelMasks, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        images, labels = torch.rand(8, 3, 6, 6), torch.randint(4, (8,))
        for lam in (0.0, 1.0):
            with knob_of(network).at(lam):
                nn.functional.cross_entropy(network(images), labels).backward()
        masks.mask_gradients()
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


def test_importance_of_the_stream_is_summed_over_what_writes_it(network: Residual) -> None:
    masks, optimizer = subject(network)
    with torch.no_grad():
        for conv in (network.stem, network.conv2):
            for norm in (conv.norm.clean, conv.norm.adv):
                norm.weight.fill_(1.0)
    make_stand_out(network, network.stem.norm, network.conv2.norm)
    masks.cut(optimizer)
    rows = network.stem.weight.mask.flatten(1).any(1).nonzero().flatten()
    assert rows.tolist() == [0, 1, 2, 4]


def test_a_cut_takes_all_that_a_channel_has(network: Residual) -> None:
    masks, optimizer = subject(network)
    train(network, masks, optimizer)
    masks.cut(optimizer)
    stream = network.stem.weight.mask.flatten(1).any(1)
    inner = network.conv1.weight.mask.flatten(1).any(1)
    assert (int(stream.sum()), int(inner.sum())) == (4, 2)
    for weight, outputs, inputs in (
        (network.stem.weight, stream, torch.ones(3, dtype=torch.bool)),
        (network.conv1.weight, inner, stream),
        (network.conv2.weight, stream, inner),
        (network.head.weight, torch.ones(4, dtype=torch.bool), stream),
    ):
        expected = (outputs[:, None] & inputs).view(len(outputs), len(inputs), *[1] * (weight.mask.ndim - 2))
        assert torch.equal(weight.mask, expected.expand_as(weight.mask))


def test_what_is_cut_is_zero_at_every_lambda_and_never_grows_again(network: Residual) -> None:
    masks, optimizer = subject(network)
    train(network, masks, optimizer)
    masks.cut(optimizer)
    train(network, masks, optimizer)
    cut = {"stream": ~network.stem.weight.mask.flatten(1).any(1), "inner": ~network.conv1.weight.mask.flatten(1).any(1)}
    for conv, channels in ((network.stem, "stream"), (network.conv1, "inner"), (network.conv2, "stream")):
        for norm in (conv.norm.clean, conv.norm.adv):
            for parameter in (norm.weight, norm.bias):
                momentum = optimizer.state[parameter]["momentum_buffer"]
                assert not parameter[cut[channels]].any()
                assert not momentum[cut[channels]].any()
                assert bool(parameter[~cut[channels]].all()), "the others are still trained"
    for unit in convolutions(network):
        outside = ~unit.weight.mask
        momentum = optimizer.state[unit.weight.theta]["momentum_buffer"]
        for tensor in (unit.weight.theta, momentum, unit.weight(0.0), unit.weight(1.0)):
            assert not tensor[outside].any()
    network.eval()
    for lam in (0.0, 0.4, 1.0):
        with knob_of(network).at(lam):
            inner, stream = network.features(torch.rand(4, 3, 6, 6))
        assert not inner[:, cut["inner"]].any()
        assert not stream[:, cut["stream"]].any()
        assert bool(stream[:, ~cut["stream"]].any())


def test_before_the_cut_nothing_is_hidden(network: Residual) -> None:
    masks, optimizer = subject(network)
    train(network, masks, optimizer, steps=1)
    assert all(bool(parameter.grad.any()) for parameter in network.parameters() if parameter.grad is not None)
    assert all(bool(unit.weight.mask.all()) for unit in convolutions(network))


def test_gradients_of_what_is_cut_are_hidden_whatever_they_are(network: Residual) -> None:
    """In this network they are zero by themselves, as ReLU passes none at zero; another activation would."""
    masks, optimizer = subject(network)
    masks.cut(optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    masks.mask_gradients()
    for conv in (network.stem, network.conv1, network.conv2):
        left = conv.weight.mask.flatten(1).any(1).float()
        for parameter in (*conv.norm.clean.parameters(), *conv.norm.adv.parameters()):
            assert torch.equal(parameter.grad, left)
    for unit in convolutions(network):
        assert torch.equal(unit.weight.theta.grad, unit.weight.mask.float())


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


def pre_activated() -> tuple[nn.Module, ChannelMasks, torch.optim.SGD]:
    torch.manual_seed(0)
    network = PreActivated()
    condition(network, IMAGES)
    return network, *subject(network)


def test_what_is_normalised_apart_counts_by_every_batchnorm_that_it_is_read_through() -> None:
    network, masks, optimizer = pre_activated()
    make_stand_out(network, network.norm.norm, network.last.norm)
    masks.cut(optimizer)
    assert network.stem.weight.mask.flatten(1).any(1).nonzero().flatten().tolist() == [0, 1, 2, 4]
    assert network.conv2.weight.mask.flatten(1).any(1).nonzero().flatten().tolist() == [0, 1, 2, 4]


def test_what_is_normalised_apart_is_zero_before_and_behind_its_batchnorms() -> None:
    network, masks, optimizer = pre_activated()
    train(network, masks, optimizer)
    masks.cut(optimizer)
    train(network, masks, optimizer)
    cut = ~network.stem.weight.mask.flatten(1).any(1)
    for norm in (network.norm.norm.clean, network.norm.norm.adv, network.last.norm.clean, network.last.norm.adv):
        for parameter in (norm.weight, norm.bias):
            assert not parameter[cut].any()
            assert not optimizer.state[parameter]["momentum_buffer"][cut].any()
            assert bool(parameter[~cut].all()), "the others are still trained"
    network.eval()
    for lam in (0.0, 0.4, 1.0):
        with knob_of(network).at(lam):
            streams = network.features(torch.rand(4, 3, 6, 6))
        for stream in streams:
            assert not stream[:, cut].any()
            assert bool(stream[:, ~cut].any())
