"""Statistics that are estimated anew, and what is left behind if that fails."""

import pytest
import torch
from torch import nn

from floats_edge.method.batchnorm import DualNorm, reestimate


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(DualNorm(nn.BatchNorm2d(2)), nn.ReLU(), DualNorm(nn.BatchNorm2d(2))).eval()


def test_statistics_become_the_mean_over_the_batches(network: nn.Sequential) -> None:
    norm = network[0]
    batches = [torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) + seed for seed in range(3)]
    reestimate(network, lambda: [norm(batch, 1.0) for batch in batches])
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(norm.adv.running_mean, means.mean(0))
    assert norm.clean.num_batches_tracked == 0


@pytest.mark.parametrize("training", [True, False])
def test_a_forward_pass_that_fails_changes_no_setting(network: nn.Sequential, training: bool) -> None:
    network.train(training)
    network[2].adv.momentum = 0.3
    seen: list[tuple[bool, float | None]] = []

    def fail() -> None:
        seen.append((network.training, network[2].adv.momentum))
        raise MemoryError

    with pytest.raises(MemoryError):
        reestimate(network, fail)
    assert seen == [(True, None)]
    assert [network[0].adv.momentum, network[2].adv.momentum] == [0.1, 0.3]
    assert network.training is training
