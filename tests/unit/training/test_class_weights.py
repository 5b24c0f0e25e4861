"""Weights by class: what each method minimises on a skewed set, and that the attack takes no notice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.training import DENSE, OAT, trainer
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from floats_edge.data import Splits
from floats_edge.images import Images
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.torch import run_predictor
from floats_edge.training import steps
from floats_edge.training.loop import Observer, train
from floats_edge.training.losses import CrossEntropy, class_weights

WEIGHTS = "train.balance=weights"


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_classes_count_alike_and_images_one_in_the_mean(labels: list[int]) -> None:
    weights = class_weights(np.array(labels), 8).numpy()
    counts = np.bincount(labels, minlength=8)
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)
    of_classes = (weights * counts)[counts > 0]
    np.testing.assert_allclose(of_classes, of_classes[0], rtol=1e-5)
    assert not weights[counts == 0].any()


@pytest.fixture(scope="module")
def skewed(few: Splits) -> Splits:
    """Of class 0 every image, of the others two each."""
    labels = few.train.labels
    kept = np.concatenate([np.flatnonzero(labels == c)[: None if c == 0 else 2] for c in range(10)])
    return replace(few, train=few.train.take(kept))


def test_a_batch_is_divided_by_its_images() -> None:
    """Not by the sum of their weights: shares of workers then have the whole batch's loss in the mean."""
    logits, labels = torch.randn(12, 3, generator=torch.manual_seed(0)), torch.tensor([0, 1, 1, 2, 2, 2] * 2)
    loss = CrossEntropy(torch.tensor([3.0, 1.0, 0.25]))
    shares = torch.stack([loss.mean(logits[start::3], labels[start::3]) for start in range(3)])
    torch.testing.assert_close(shares.mean(), loss.mean(logits, labels))
    torch.testing.assert_close(loss.each(logits, labels).mean(), loss.mean(logits, labels))


def test_without_weights_it_is_cross_entropy() -> None:
    logits, labels = torch.randn(12, 3, generator=torch.manual_seed(0)), torch.tensor([0, 1, 2] * 4)
    assert CrossEntropy().mean(logits, labels) == cross_entropy(logits, labels)


OPTIONS = {
    "float": DENSE,
    "resample": (*DENSE, "condition.noise=resample"),
    "oat": OAT,
    "pgd-at": (*DENSE, "method=pgd-at"),
    "pgd-at-half": (*DENSE, "method=pgd-at", "pgd_at.weight=0.5"),
    "trades": (*DENSE, "method=trades"),
    "smoothed": (*DENSE, "train.label_smoothing=0.2"),
    "standard": (*DENSE, "method=standard"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_loss_of_every_method_is_weighted(
    name: str, digits_recipe: Recipe, skewed: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images of one class alone, the losses are those without weights, times the weight.

    The divergence of TRADES, which has no weights, is 0 without an attack.
    """
    monkeypatch.setattr(steps, "attack", lambda network, images, *rest, **config: images)

    def losses(*options: str) -> steps.Losses:
        subject = trainer(digits_recipe, skewed, *OPTIONS[name], *options)
        images, labels = next(subject.feed.batches(0))
        return subject.step.losses(images, torch.full_like(labels, 3), subject.attack, torch.Generator().manual_seed(0))

    plain, weighted = losses(), losses(WEIGHTS)
    factor = class_weights(skewed.train.labels, 10)[3].item()
    assert factor > 1.1
    for one, other in zip(
        (plain.total, plain.clean, plain.robust), (weighted.total, weighted.clean, weighted.robust), strict=True
    ):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(other, one * factor)


@pytest.mark.parametrize("option", [WEIGHTS, "train.label_smoothing=0.5"])
def test_the_attack_is_the_same(option: str, digits_recipe: Recipe, skewed: Splits) -> None:
    """It maximises the loss of each image by itself, away from its class alone."""

    def attacked(*options: str) -> torch.Tensor:
        subject = trainer(digits_recipe, skewed, *DENSE, *options)
        step = subject.step
        assert isinstance(step, steps.FloatStep)
        return step.attacked(*next(subject.feed.batches(0)), subject.attack, torch.Generator().manual_seed(0))

    torch.testing.assert_close(attacked(), attacked(option), rtol=0, atol=0)


def test_a_rare_class_is_learnt(digits_recipe: Recipe, digits: Splits, silent: Observer, tmp_path: Path) -> None:
    """Nines, and a twentieth as many threes.

    Without weights no rare digit was found, with them 59 to 100 % (3 seeds each of threes in nines, eights in ones).
    """

    def chosen(images: Images, most: int | None) -> Images:
        of = [np.flatnonzero(images.labels == c)[:few] for c, few in ((9, None), (3, most))]
        two = images.take(np.sort(np.concatenate(of)))
        return replace(two, labels=(two.labels == 3).astype(np.int64))

    splits = replace(
        digits,
        train=chosen(digits.train, len(digits.train.labels[digits.train.labels == 9]) // 20),
        validation=chosen(digits.validation, None),
        test=chosen(digits.test, None),
        labels=("nine", "three"),
    )

    def found(balance: str) -> float:
        options = (*DENSE, "train.batch_size=16", f"train.balance={balance}")
        network = run_predictor(train(override_recipe(digits_recipe, options), splits, tmp_path / balance, silent))
        network.set_lambda(0.0)
        threes = splits.test.as_float(np.flatnonzero(splits.test.labels == 1))
        return float((network.predict(threes).argmax(1) == 1).mean())

    assert found("weights") > found("none") + 0.3
