import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.attacks import Network, attack, n_fgsm, pgd
from floats_edge.data import Splits
from floats_edge.runtime.torch import run_predictor

EPSILON = 0.1


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    """Some at the borders of [0, 1], as real images are."""
    return (torch.rand(32, 3, 6, 6, generator=seeded(0)) * 1.4 - 0.2).clamp(0, 1)


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(2, (32,), generator=seeded(1))


@pytest.fixture
def direction() -> Tensor:
    """What the linear network weighs the pixels with."""
    return torch.randn(3, 6, 6, generator=seeded(2))


@pytest.fixture
def linear(direction: Tensor) -> Network:
    """Two classes, of logits w.x and -w.x: the sign of the loss's gradient is the same everywhere."""

    def network(images: Tensor) -> Tensor:
        score = 0.01 * (images * direction).sum((1, 2, 3))
        return torch.stack((score, -score), 1)

    return network


@pytest.fixture
def uphill(direction: Tensor, labels: Tensor) -> Tensor:
    """Sign of the loss's gradient for every image."""
    return torch.where((labels == 0)[:, None, None, None], -direction, direction).sign()


def test_pgd_reaches_the_optimum_of_a_linear_network(
    linear: Network, images: Tensor, labels: Tensor, uphill: Tensor
) -> None:
    attacked = pgd(linear, images, labels, seeded(3), EPSILON, EPSILON / 4, steps=10)
    torch.testing.assert_close(attacked, (images + EPSILON * uphill).clamp(0, 1))


def test_the_margin_still_leads_where_a_network_is_too_sure_for_cross_entropy(
    linear: Network, images: Tensor, labels: Tensor, uphill: Tensor
) -> None:
    def certain(images: Tensor) -> Tensor:
        return 1e6 * linear(images)

    sure = certain(images).argmax(1)
    away = torch.where((sure == labels)[:, None, None, None], uphill, -uphill)
    ten = {"kind": "pgd", "epsilon": EPSILON, "steps": 10}
    attacked = attack(certain, images, sure, seeded(3), loss="margin", **ten)
    torch.testing.assert_close(attacked, (images + EPSILON * away).clamp(0, 1))
    masked = attack(certain, images, sure, seeded(3), **ten)
    assert (certain(masked).argmax(1) == sure).sum() > (certain(attacked).argmax(1) == sure).sum()


def test_default_step_of_pgd_is_a_quarter_of_epsilon(
    linear: Network, images: Tensor, labels: Tensor, uphill: Tensor
) -> None:
    start = (images + torch.empty_like(images).uniform_(-EPSILON, EPSILON, generator=seeded(3))).clamp(0, 1)
    attacked = attack(linear, images, labels, seeded(3), kind="pgd", epsilon=EPSILON)
    moved = (start + EPSILON / 4 * uphill).clamp(images - EPSILON, images + EPSILON).clamp(0, 1)
    torch.testing.assert_close(attacked, moved)


def test_pgd_can_start_next_to_the_image(linear: Network, images: Tensor, labels: Tensor, uphill: Tensor) -> None:
    noise = torch.empty_like(images).normal_(0, 0.01, generator=seeded(3))
    attacked = attack(linear, images, labels, seeded(3), kind="pgd", epsilon=EPSILON, deviation=0.01)
    torch.testing.assert_close(attacked, ((images + noise).clamp(0, 1) + EPSILON / 4 * uphill).clamp(0, 1))


def test_fgsm_rs_is_a_random_start_and_one_step_of_five_quarters(
    linear: Network, images: Tensor, labels: Tensor, uphill: Tensor
) -> None:
    start = (images + torch.empty_like(images).uniform_(-EPSILON, EPSILON, generator=seeded(3))).clamp(0, 1)
    attacked = attack(linear, images, labels, seeded(3), kind="fgsm-rs", epsilon=EPSILON)
    moved = (start + 1.25 * EPSILON * uphill).clamp(images - EPSILON, images + EPSILON).clamp(0, 1)
    torch.testing.assert_close(attacked, moved)


def test_n_fgsm_steps_from_wide_noise_and_is_not_projected(
    linear: Network, images: Tensor, labels: Tensor, uphill: Tensor
) -> None:
    noise = torch.empty_like(images).uniform_(-2 * EPSILON, 2 * EPSILON, generator=seeded(3))
    attacked = attack(linear, images, labels, seeded(3), kind="n-fgsm", epsilon=EPSILON)
    torch.testing.assert_close(attacked, (images + noise + EPSILON * uphill).clamp(0, 1))
    farthest = (attacked - images).abs().max().item()
    assert 2.5 * EPSILON < farthest <= 3 * EPSILON + 1e-6
    torch.testing.assert_close(n_fgsm(linear, images, labels, seeded(3), EPSILON, EPSILON), attacked)


@settings(max_examples=25)
@given(epsilon=st.floats(1e-3, 1), kind=st.sampled_from(["pgd", "fgsm-rs"]), seed=st.integers(0, 100))
def test_stays_in_the_ball_and_among_images(epsilon: float, kind: str, seed: int) -> None:
    images = (torch.rand(4, 1, 5, 5, generator=seeded(seed)) * 1.4 - 0.2).clamp(0, 1)
    weight = torch.randn(25, 3, generator=seeded(seed))
    attacked = attack(
        lambda x: x.flatten(1) @ weight, images, torch.tensor([0, 1, 2, 0]), seeded(seed), kind=kind, epsilon=epsilon
    )
    assert (attacked - images).abs().max() <= epsilon + 1e-6
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert not torch.equal(attacked, images)


@pytest.mark.parametrize("kind", ["pgd", "fgsm-rs", "n-fgsm"])
def test_is_a_function_of_its_generator(linear: Network, images: Tensor, labels: Tensor, kind: str) -> None:
    clean = images.clone()
    first, again, other = (
        attack(linear, images, labels, seeded(seed), kind=kind, epsilon=EPSILON) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, clean)
    assert not first.requires_grad


def test_works_where_gradients_are_off(linear: Network, images: Tensor, labels: Tensor) -> None:
    with torch.no_grad():
        attacked = pgd(linear, images, labels, seeded(3), EPSILON, EPSILON / 4, steps=2)
    assert torch.equal(attacked, pgd(linear, images, labels, seeded(3), EPSILON, EPSILON / 4, steps=2))


def test_unknown_attack(linear: Network, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(ValueError, match="square"):
        attack(linear, images, labels, seeded(0), kind="square", epsilon=EPSILON)


def test_restarts_fool_more_and_never_less(digits_run: TrainingRun, digits: Splits) -> None:
    predictor = run_predictor(digits_run)
    predictor.set_lambda(1.0)
    network = predictor.network
    images, labels = torch.from_numpy(digits.test.as_float(slice(200))), torch.from_numpy(digits.test.labels[:200])

    def right(restarts: int) -> Tensor:
        attacked = pgd(network, images, labels, seeded(0), 0.15, 0.15, steps=1, restarts=restarts)
        assert (attacked - images).abs().max() <= 0.15 + 1e-6
        return network(attacked).argmax(1) == labels

    once, thrice, often = right(1), right(3), right(10)
    assert bool((once | ~thrice).all()), "an image that one start fools stays fooled"
    assert bool((thrice | ~often).all())
    assert often.sum() < once.sum()


def test_attacks_a_real_network(digits_run: TrainingRun, digits: Splits) -> None:
    """More steps hurt more; a larger epsilon hurts more."""
    predictor = run_predictor(digits_run)
    network = predictor.network
    images, labels = torch.from_numpy(digits.test.as_float(slice(200))), torch.from_numpy(digits.test.labels[:200])

    def accuracy(epsilon: float, steps: int) -> float:
        attacked = pgd(network, images, labels, seeded(0), epsilon, epsilon / 4, steps)
        return (network(attacked).argmax(1) == labels).float().mean().item()

    clean = (network(images).argmax(1) == labels).float().mean().item()
    assert clean > 0.8
    assert accuracy(0.15, 10) < accuracy(0.15, 1) < clean
    assert accuracy(0.15, 10) < accuracy(0.05, 10) < clean
