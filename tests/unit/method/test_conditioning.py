import numpy as np
import pytest
import torch
from torch import nn

from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.noise import standard_normal


@pytest.fixture
def weight() -> ConditionedWeight:
    """A masked weight with noise, some of it outside the mask."""
    weight = ConditionedWeight(nn.Parameter(torch.empty(6, 4, 3, 3)))
    generator = torch.Generator().manual_seed(0)
    weight.theta.data.normal_(0.3, 2.0, generator=generator)
    weight.alpha.data.fill_(0.7)
    weight.draw_noise(seed=5, layer_index=2)
    weight.set_mask(torch.rand(weight.theta.shape, generator=generator) < 0.4)
    return weight


def inside(weight: ConditionedWeight) -> np.ndarray:
    """theta over its unmasked entries."""
    return weight.theta.detach().numpy()[weight.mask.numpy()].astype(np.float64)


@pytest.mark.parametrize("lam", [0.0, 0.2, 1.0])
def test_is_the_equation(weight: ConditionedWeight, lam: float) -> None:
    m, theta, eta = (tensor.detach().double().numpy() for tensor in (weight.mask, weight.theta, weight.eta))
    wanted = m * (theta + lam * 0.7 * inside(weight).std() * eta)
    np.testing.assert_allclose(weight(lam).detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_eta_is_the_draw_of_the_layer(weight: ConditionedWeight) -> None:
    np.testing.assert_array_equal(weight.eta.numpy(), standard_normal(5, 2, (6, 4, 3, 3)))


def test_sigma_is_taken_over_the_unmasked_entries(weight: ConditionedWeight) -> None:
    assert weight.sigma().item() == pytest.approx(inside(weight).std(), rel=1e-5)


@pytest.mark.parametrize("deviation", [1e-2, 1e-3, 1e-4])
def test_sigma_of_weights_that_hardly_differ(weight: ConditionedWeight, deviation: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight.theta.data.normal_(1.0, deviation, generator=generator)
    weight.set_mask(weight.mask.clone())
    assert weight.sigma().item() == pytest.approx(inside(weight).std(), rel=1e-4)


def test_sigma_of_equal_weights_is_zero(weight: ConditionedWeight) -> None:
    weight.theta.data.fill_(0.5)
    weight.set_mask(weight.mask.clone())
    assert weight.sigma().item() == 0


def test_set_mask_clears_what_it_excludes(weight: ConditionedWeight) -> None:
    assert weight.theta[~weight.mask].abs().max() == 0
    assert weight.theta[weight.mask].abs().min() > 0


def test_gradient_of_theta_is_dense_and_sigma_is_detached(weight: ConditionedWeight) -> None:
    upstream = torch.randn(weight.theta.shape, generator=torch.Generator().manual_seed(1))
    (weight(0.5) * upstream).sum().backward()
    torch.testing.assert_close(weight.theta.grad, upstream, rtol=0, atol=0)


def test_gradient_of_alpha(weight: ConditionedWeight) -> None:
    weight(0.5).sum().backward()
    wanted = 0.5 * inside(weight).std() * (weight.mask * weight.eta).sum().item()
    assert weight.alpha.grad is not None
    assert weight.alpha.grad.item() == pytest.approx(wanted, rel=1e-4)


def test_at_lambda_0_neither_noise_nor_alpha_take_part(weight: ConditionedWeight) -> None:
    weight(0.0).sum().backward()
    assert weight.alpha.grad is None
    assert torch.equal(weight(0.0), weight.theta)
