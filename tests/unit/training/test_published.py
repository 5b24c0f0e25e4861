"""What is known of the authors' choices, each by itself, and the recipe that takes them all."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.training import DENSE, trainer
from torch import Tensor
from torch.nn.functional import cross_entropy

from floats_edge.data import Splits, load_data
from floats_edge.method.condition import draw_noise
from floats_edge.method.conditioning import conditioned_weights
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import load_recipe
from floats_edge.training import steps
from floats_edge.training.loop import Observer, Trainer, train

EVERY = (*DENSE, "condition.noise=every-forward", "attack.kind=pgd", "attack.steps=3")


def take_step(subject: Trainer) -> tuple[Tensor, Tensor, steps.Losses]:
    images, labels = next(subject.feed.batches(0))
    return images, labels, subject.step.losses(images, labels, subject.attack, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("noise", ["frozen", "resample", "every-forward"])
def test_all_images_are_trained_clean_and_every_loss_counts_alike(
    noise: str, digits_recipe: Recipe, few: Splits, float64: None, attacked: list[Tensor]
) -> None:
    """Half of the mean over the batch of ``clean + attacked``, where half of the batch has no attacked loss."""
    options = (f"condition.noise={noise}", "condition.clean_images=all")
    subject = trainer(digits_recipe, few, *DENSE, *options)
    theirs: Any = copy.deepcopy(subject.step)
    images, labels, losses = take_step(subject)
    theirs.network.train()
    clean, noisy = conditioned_weights(theirs.network), subject.weights_by_layer
    with theirs.knob.at(0.0):
        each = [cross_entropy(theirs.network(images[:8]), labels[:8], reduction="none")]
    with theirs.knob.at(1.0):
        for weight in clean.values():
            weight.eta.zero_()
        each.append(cross_entropy(theirs.network(images[8:]), labels[8:], reduction="none"))
        for name, weight in clean.items():
            weight.eta.copy_(noisy[name].eta)
        each.append(cross_entropy(theirs.network(attacked[0]), labels[8:], reduction="none"))
    expected = 0.5 * torch.cat(each).sum() / 16
    torch.testing.assert_close(losses.total, expected, rtol=1e-9, atol=1e-12)
    assert losses.clean is not None
    torch.testing.assert_close(losses.clean, torch.cat(each[:2]).mean(), rtol=1e-9, atol=1e-12)
    assert losses.robust is not None
    torch.testing.assert_close(losses.robust, each[2].mean(), rtol=1e-9, atol=1e-12)
    ours = torch.autograd.grad(losses.total, [*subject.network.parameters()])
    for one, other in zip(ours, torch.autograd.grad(expected, [*theirs.network.parameters()]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)
    for one, other in zip(subject.network.buffers(), theirs.network.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_noise_is_redrawn_in_every_step_of_the_attack_and_in_the_update(digits_recipe: Recipe, few: Splits) -> None:
    subject = trainer(digits_recipe, few, *EVERY)
    step: Any = subject.step
    frozen = subject.weights_by_layer["head"].eta.clone()
    used: list[Tensor] = []
    step.folded.register_forward_hook(lambda *_: used.append(step.folded.head.weight.clone()))
    take_step(subject)
    weight = subject.weights_by_layer["head"]
    with torch.no_grad():
        draws = torch.stack([*used, weight(1.0)]) - weight.theta
    assert len(draws) == 3 + 1
    assert not (draws[:, None] == draws).all((2, 3)).triu(1).any(), "no two forwards have the same noise"
    spread = draws.std((1, 2)) / (weight.alpha * weight.sigma())
    torch.testing.assert_close(spread, torch.ones(4), atol=0.35, rtol=0)
    assert not torch.equal(weight.eta, frozen)


def test_a_network_under_redrawn_noise_is_saved_ready_for_the_frozen_draw(
    digits_recipe: Recipe, few: Splits, silent: Observer
) -> None:
    """Settled on images that were attacked under that draw, too."""
    subject = trainer(digits_recipe, few, *EVERY)
    subject.run_epoch(0, silent)
    frozen = copy.deepcopy(subject.network)
    draw_noise(frozen, subject.recipe.condition.noise_seed)
    for name, weight in conditioned_weights(frozen).items():
        assert torch.equal(weight.eta, subject.weights_by_layer[name].eta)


def test_the_recipe_trains(silent: Observer, tmp_path: Path) -> None:
    """All choices together, FLOATS, small, on digits: the classifier has neither noise nor mask."""
    recipe = load_recipe(
        "float-published",
        (
            "data={dataset: digits, crop: 1}",
            "model={name: resnet8, arguments: {width: 8}}",
            "sparsity.density=0.4",
            "attack={kind: pgd, epsilon: 0.1, steps: 2}",
            "train.epochs=4",
            "train.batch_size=64",
        ),
    )
    run = train(recipe, load_data(recipe.data, 0), tmp_path / "run", silent)
    first, *_, last = run.checkpoint.history
    assert last.loss < first.loss
    assert last.clean_accuracy > 60
    assert last.density == pytest.approx(0.4, abs=0.001)
    assert first.swapped > 0
    assert {name.partition(".")[0] for name in last.alpha} == {"stem", "blocks"}
    assert "head.weight" in run.weights()
