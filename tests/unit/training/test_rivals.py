"""TRADES, PGD training with a weight, and label smoothing, against their formulas, written out, in float64."""

import copy

import pytest
import torch
from fixtures.training import DENSE, trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from floats_edge.attacks import Network
from floats_edge.data import Splits
from floats_edge.recipe import Recipe
from floats_edge.training.loop import Trainer
from floats_edge.training.losses import CrossEntropy, class_weights, divergence
from floats_edge.training.steps import NEAR

PGD = ("attack.kind=pgd", "attack.steps=3")
CHOICES = {
    "plain": (),
    "weights": ("train.balance=weights",),
    "smoothed": ("train.label_smoothing=0.2", "train.balance=weights"),
    "mixed": ("data.mixup=1", "train.label_smoothing=0.2", "train.balance=weights"),
}
METHODS = {
    "pgd-at": ("method=pgd-at",),
    "pgd-at-0.3": ("method=pgd-at", "pgd_at.weight=0.3"),
    "trades": ("method=trades", "trades.beta=2.5"),
}


@pytest.fixture
def float64(float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class weights, too."""
    monkeypatch.setattr("floats_edge.training.losses.class_weights", lambda *of: class_weights(*of).double())


def entropy(logits: Tensor, labels: Tensor, subject: Trainer, splits: Splits) -> Tensor:
    """The mean over images of what their labels cost, weighted and smoothed as the recipe says."""
    config, classes = subject.recipe.train, logits.shape[1]
    targets = labels if labels.ndim == 2 else torch.eye(classes)[labels]
    weights = torch.ones(classes)
    if config.balance == "weights":
        weights = class_weights(splits.train.labels, classes).double()
    cost = (logits.exp().sum(1, keepdim=True)).log() - logits
    sharp = (targets * weights * cost).sum(1)
    even = (targets * weights).sum(1) * cost.mean(1)
    return ((1 - config.label_smoothing) * sharp + config.label_smoothing * even).mean()


def formula(clean: Tensor, robust: Tensor, labels: Tensor, subject: Trainer, splits: Splits) -> Tensor:
    """What a method minimises, of the logits of clean and attacked images."""
    recipe = subject.recipe
    if recipe.method == "trades":
        p, q = (logits.exp() / logits.exp().sum(1, keepdim=True) for logits in (clean, robust))
        apart = (p * (p / q).log()).sum(1).mean()
        return entropy(clean, labels, subject, splits) + recipe.trades.beta * apart
    weight = recipe.pgd_at.weight
    losses = (entropy(logits, labels, subject, splits) for logits in (clean, robust))
    return sum((share * loss for share, loss in zip((1 - weight, weight), losses, strict=True)), torch.zeros(()))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_are_those_of_the_formula(
    method: str, choice: str, digits_recipe: Recipe, few: Splits, float64: None, attacked: list[Tensor]
) -> None:
    """No gradient comes by way of the attack; p(clean) has its own."""
    subject = trainer(digits_recipe, few, *DENSE, *METHODS[method], *CHOICES[choice])
    theirs = copy.deepcopy(subject.network).train()
    images, labels = next(subject.feed.batches(0))
    labels = labels.double() if labels.ndim == 2 else labels
    total = subject.step.losses(images, labels, subject.attack, torch.Generator().manual_seed(0)).total
    expected = formula(theirs(images), theirs(attacked[0]), labels, subject, few)
    assert total.dtype == torch.float64
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-12)
    ours = torch.autograd.grad(total, [*subject.network.parameters()])
    for one, other in zip(ours, torch.autograd.grad(expected, [*theirs.parameters()]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "order"), [("pgd-at", "a"), ("pgd-at-0.3", "ac"), ("trades", "ca")], ids=lambda value: value
)
def test_batchnorm_sees_clean_and_attacked_images_apart_and_not_the_attack(
    method: str, order: str, digits_recipe: Recipe, few: Splits, attacked: list[Tensor]
) -> None:
    subject = trainer(digits_recipe, few, *DENSE, *METHODS[method], *PGD)
    theirs = copy.deepcopy(subject.network).train()
    images, labels = next(subject.feed.batches(0))
    subject.step.losses(images, labels, subject.attack, torch.Generator().manual_seed(0))
    for kind in order:
        theirs({"c": images, "a": attacked[0]}[kind])
    for one, other in zip(subject.network.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def climbed(network: Network, images: Tensor, adversarial: Tensor, step: float) -> Tensor:
    """One step up the divergence from what the network says of clean images, as the authors of TRADES take it."""
    adversarial = adversarial.detach().requires_grad_()
    target = network(images).softmax(1)
    loss = nn.KLDivLoss(reduction="sum")(network(adversarial).log_softmax(1), target)
    (gradient,) = torch.autograd.grad(loss, adversarial)
    return adversarial.detach() + step * gradient.sign()


@pytest.mark.parametrize("kind", ["pgd", "fgsm-rs", "n-fgsm"])
def test_the_attack_of_trades_climbs_the_divergence(
    kind: str, digits_recipe: Recipe, few: Splits, float64: None, attacked: list[Tensor]
) -> None:
    """PGD from next to the image, the others from where they always start."""
    options = PGD if kind == "pgd" else (f"attack.kind={kind}",)
    subject = trainer(digits_recipe, few, *DENSE, *METHODS["trades"], *options)
    images, labels = next(subject.feed.batches(0))
    network = copy.deepcopy(subject.step).at(1.0)
    subject.step.losses(images, labels, subject.attack, torch.Generator().manual_seed(5))
    generator, epsilon = torch.Generator().manual_seed(5), subject.attack.epsilon
    noise = torch.empty_like(images)
    low, high = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    if kind == "pgd":
        expected = (images + noise.normal_(0, NEAR, generator=generator)).clamp(0, 1)
        for _ in range(3):
            expected = climbed(network, images, expected, epsilon / 4).clamp(low, high)
    elif kind == "fgsm-rs":
        start = (images + noise.uniform_(-epsilon, epsilon, generator=generator)).clamp(0, 1)
        expected = climbed(network, images, start, 1.25 * epsilon).clamp(low, high)
    else:
        start = images + noise.uniform_(-2 * epsilon, 2 * epsilon, generator=generator)
        expected = climbed(network, images, start, epsilon).clamp(0, 1)
    torch.testing.assert_close(attacked[0], expected)


@pytest.mark.parametrize(("method", "passes"), [("pgd-at", 1), ("pgd-at-0.3", 2), ("trades", 2)])
def test_how_often_an_image_is_trained_on(method: str, passes: int, digits_recipe: Recipe, few: Splits) -> None:
    subject, seen = trainer(digits_recipe, few, *DENSE, *METHODS[method]), []
    subject.network.register_forward_hook(lambda module, args, logits: seen.append(len(logits)))
    losses = subject.step.losses(*next(subject.feed.batches(0)), subject.attack, torch.Generator().manual_seed(0))
    assert seen == [16] * passes
    assert (losses.clean is None) == (passes == 1)
    assert losses.robust is not None


def test_the_divergence_is_not_rounded_in_mixed_precision() -> None:
    """It is a small difference of large numbers."""
    clean, change = torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(0)).bfloat16()
    attacked = clean + 0.05 * change
    with torch.autocast("cpu", torch.bfloat16):
        found = divergence(clean, attacked)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, divergence(clean.double(), attacked.double()).float(), rtol=1e-4, atol=0)


class TestSmoothing:
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2] * 4)

    def test_without_weights_it_is_that_of_torch(self) -> None:
        loss = CrossEntropy(smoothing=0.3)
        mixed = torch.eye(3, dtype=torch.float64)[self.labels].roll(1, 0) * 0.4
        mixed += 0.6 * torch.eye(3, dtype=torch.float64)[self.labels]
        for truth in (self.labels, mixed):
            expected = cross_entropy(self.logits, truth, label_smoothing=0.3)
            torch.testing.assert_close(loss.mean(self.logits, truth), expected)
            torch.testing.assert_close(loss.each(self.logits, truth).mean(), expected)

    def test_an_image_keeps_its_weight(self) -> None:
        """A frequent class beside rare ones stays the likeliest of its own smoothed target."""
        weights = torch.tensor([0.1, 10.0, 10.0], dtype=torch.float64)
        each = CrossEntropy(weights, smoothing=0.3).each(self.logits, self.labels)
        bare = cross_entropy(self.logits, self.labels, reduction="none", label_smoothing=0.3)
        torch.testing.assert_close(each, weights[self.labels] * bare)
        one_hot = torch.eye(3, dtype=torch.float64)[self.labels]
        torch.testing.assert_close(CrossEntropy(weights, smoothing=0.3).each(self.logits, one_hot), each)
