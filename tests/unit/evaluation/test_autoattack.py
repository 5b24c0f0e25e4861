"""AutoAttack on real digits: stronger than PGD, within its ball, repeatable, and with its flags."""

from pathlib import Path

import pytest
import torch

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.errors import RecipeError
from floats_edge.evaluation.autoattack import autoattack
from floats_edge.evaluation.robustness import evaluate
from floats_edge.recipe import Attack, Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.torch import TorchPredictor, run_predictor

pytest.importorskip("pyautoattack")

EPSILON = 0.3


def attacked(network: TorchPredictor, digits: Splits, seed: int) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    few = digits.test.first(4)
    images = torch.from_numpy(few.as_float()).contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    adversarial, flags = autoattack(network.network, images, torch.from_numpy(few.labels), generator, EPSILON)
    return images, adversarial, flags


def test_stays_in_the_ball_and_repeats(digits_run: TrainingRun, digits: Splits) -> None:
    network = run_predictor(digits_run)
    network.set_lambda(1.0)
    state = torch.random.get_rng_state()
    images, adversarial, _ = attacked(network, digits, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator belongs to the caller"
    assert (adversarial - images).abs().max() <= EPSILON + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not torch.equal(adversarial, images)
    assert torch.equal(attacked(network, digits, seed=0)[1], adversarial)


def test_evaluation_by_autoattack_is_at_most_that_by_pgd(digits_run: TrainingRun, digits: Splits) -> None:
    network, few = run_predictor(digits_run), digits.test.first(5)
    pgd = Attack(kind="pgd", epsilon=0.1, step=None, steps=20)
    auto = Attack(kind="autoattack", epsilon=0.1, step=None)
    (weaker,), (stronger,) = (evaluate(network, network, few, (1.0,), config, 0) for config in (pgd, auto))
    assert stronger.robust.count <= weaker.robust.count
    assert weaker.robust.count > 0
    assert stronger.clean == weaker.clean
    assert weaker.flags == ()


def test_a_randomised_network_is_flagged() -> None:
    noise = torch.Generator().manual_seed(0)

    def network(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10] * 5 + torch.randn(len(images), 10, generator=noise)

    images, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    _, flags = autoattack(network, images, labels, torch.Generator().manual_seed(0), EPSILON)
    assert any("randomized defense" in flag for flag in flags)


@pytest.mark.parametrize("classes", [4, 5, 9])
def test_below_ten_classes_it_aims_at_those_that_there_are(classes: int) -> None:
    """It succeeds on a linear network, and doubts nothing."""
    weights = torch.randn(classes, 16, generator=torch.Generator().manual_seed(classes))

    def network(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ weights.T

    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = network(images).argmax(1)
    adversarial, flags = autoattack(network, images, labels, torch.Generator().manual_seed(0), EPSILON)
    assert (adversarial - images).abs().max() <= EPSILON + 1e-6
    assert (network(adversarial).argmax(1) != labels).any()
    assert not any("classes" in flag for flag in flags)


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_for_it(classes: int) -> None:
    images, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    with pytest.raises(
        RecipeError, match=f"needs a network of 4 classes or more, and this one knows {classes}"
    ) as told:
        autoattack(lambda x: x.flatten(1)[:, :classes], images, labels, torch.Generator(), EPSILON)
    assert "--attack pgd" in told.value.fix


def test_some_attacks_are_not_for_training(digits_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"attack\.kind: Input should be 'pgd', 'fgsm-rs' or 'n-fgsm'"):
        override_recipe(digits_recipe, ("attack.kind=autoattack",))
    with pytest.raises(RecipeError, match="takes no steps, restarts or loss"):
        override_recipe(digits_recipe, ("evaluate.attack.kind=autoattack", "evaluate.attack.steps=7"))
    with pytest.raises(RecipeError, match=r"attack\.loss: Input should be 'cross-entropy'"):
        override_recipe(digits_recipe, ("attack.loss=margin",))
