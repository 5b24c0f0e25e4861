from collections.abc import Callable

import numpy as np
import pytest
import torch

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.errors import LambdaError
from floats_edge.evaluation.robustness import attacked_images, evaluate
from floats_edge.images import Images
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe import Attack
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.base import Logits, Predictor
from floats_edge.runtime.torch import TorchPredictor, run_predictor
from floats_edge.runtime.twin import BundleTwin

PGD = Attack(kind="pgd", epsilon=0.15, steps=5)


@pytest.fixture(scope="module")
def images(digits: Splits) -> Images:
    return digits.test.first(200)


@pytest.fixture
def network(digits_run: TrainingRun) -> TorchPredictor:
    return run_predictor(digits_run)


def test_clean_accuracy_is_the_share_of_images_classified_correctly(network: TorchPredictor, images: Images) -> None:
    for result in evaluate(network, network, images, (0.0, 0.5, 1.0), PGD, seed=0):
        network.set_lambda(result.lam)
        right = network.predict(images.as_float()).argmax(1) == images.labels
        assert (result.clean.count, result.clean.total) == (right.sum(), 200)
        assert result.robust.total == 200


def test_the_knob_trades_robust_accuracy(network: TorchPredictor, digits: Splits) -> None:
    strong = Attack(kind="pgd", epsilon=0.2, steps=20)
    ends = evaluate(network, network, digits.test, (0.0, 1.0), strong, seed=0)
    assert ends[0].clean.percent > 80
    assert ends[0].robust.percent < ends[1].robust.percent < ends[1].clean.percent


def test_a_stronger_attack_leaves_less(network: TorchPredictor, images: Images) -> None:
    def robust(**changes: object) -> int:
        attack = Attack.model_validate({**PGD.model_dump(), **changes})
        return evaluate(network, network, images, (1.0,), attack, seed=0)[0].robust.count

    clean = evaluate(network, network, images, (1.0,), PGD, seed=0)[0].clean.count
    assert robust(epsilon=1e-6) == clean
    assert robust(epsilon=0.3) < robust(epsilon=0.15) < clean
    assert robust(epsilon=0.5, steps=20) <= 2
    assert robust(restarts=4) <= robust()


def test_is_a_function_of_its_seed(network: TorchPredictor, images: Images) -> None:
    weak = Attack(kind="fgsm-rs", epsilon=0.15)
    counts = [
        [r.robust.count for r in evaluate(network, network, images, (0.0, 0.25, 0.5, 1.0), weak, seed)]
        for seed in (0, 0, 1)
    ]
    assert counts[0] == counts[1]
    assert counts[0] != counts[2]


def test_a_lambda_has_the_same_result_alone_and_in_a_sweep(network: TorchPredictor, images: Images) -> None:
    sweep = evaluate(network, network, images, (0.0, 0.5, 1.0), PGD, seed=0)
    assert evaluate(network, network, images, (0.5,), PGD, seed=0) == (sweep[1],)


def test_an_export_is_as_robust_as_what_it_was_made_from(
    network: TorchPredictor, bundles: Callable[..., Bundle], images: Images
) -> None:
    """The attack takes its gradients from the twin and is replayed on the engine; fp32 agrees on every image."""
    bundle = bundles("bound")
    with open_predictor(bundle, "ort-cpu", 0.0) as engine:
        exported = evaluate(engine, BundleTwin(bundle), images, (0.0, 0.7), PGD, seed=0)
    assert exported == evaluate(network, network, images, (0.0, 0.7), PGD, seed=0)


class Contrarian(Predictor):
    """Right on images as they are in the data set if ``on_clean``, and right on all others if not."""

    def __init__(self, images: Images, on_clean: bool) -> None:
        super().__init__("contrarian", Preprocessing().resolved((1, 8, 8)), None, 0.0)
        self.labels = {image.tobytes(): label for image, label in zip(images.as_float(), images.labels, strict=True)}
        self.truth = images.labels
        self.on_clean = on_clean

    def _switch(self, lam: float) -> None:
        pass

    def _infer(self, images: np.ndarray) -> Logits:
        clean = np.array([image.tobytes() in self.labels for image in images])
        answers = np.where(clean == self.on_clean, self.truth[: len(images)], (self.truth[: len(images)] + 1) % 10)
        return np.eye(10, dtype=np.float32)[answers]


@pytest.mark.parametrize(("on_clean", "clean"), [(True, 100), (False, 0)])
def test_robust_means_right_on_both(network: TorchPredictor, images: Images, on_clean: bool, clean: int) -> None:
    """An engine that is right only on attacked images is not robust; nor is one that is right only on clean ones."""
    few = images.first(100)
    (result,) = evaluate(Contrarian(few, on_clean), network, few, (0.0,), PGD, seed=0)
    assert (result.clean.count, result.robust.count) == (clean, 0)


def test_progress_counts_every_image_at_every_lambda(network: TorchPredictor, images: Images) -> None:
    done: list[int] = []
    evaluate(network, network, images, (0.0, 1.0), Attack(kind="fgsm-rs", epsilon=0.1), 0, done.append)
    assert sum(done) == 2 * len(images)
    assert len(done) > 2


def test_a_lambda_that_is_not_served(bundles: Callable[..., Bundle], images: Images) -> None:
    bundle = bundles("fixed")
    with open_predictor(bundle, "ort-cpu", 0.3) as engine, pytest.raises(LambdaError):
        evaluate(engine, BundleTwin(bundle), images, (0.3, 0.4), PGD, seed=0)


class Blind:
    """A twin without gradient signal."""

    device = torch.device("cpu")

    @staticmethod
    def network(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.sum((1, 2, 3))[:, None] * torch.zeros(10)

    def set_lambda(self, lam: float) -> float:
        return lam


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_random_starts_do_not_depend_on_the_batch(images: Images, batch: int) -> None:
    """Without gradients an attacked image is its random start."""

    whole, parts = (
        np.concatenate(list(attacked_images(Blind(), images, 1.0, PGD, 0, at_once))) for at_once in (200, batch)
    )
    assert np.abs(whole - images.as_float()).max() > 0.1
    np.testing.assert_array_equal(parts, whole)


def test_gradients_are_the_twins(network: TorchPredictor, images: Images) -> None:
    """A twin without gradient signal leaves only random noise, which fools less than a real attack."""

    seen = evaluate(network, network, images, (0.0,), PGD, seed=0)[0].robust.count
    blind = evaluate(network, Blind(), images, (0.0,), PGD, seed=0)[0].robust.count
    assert seen < blind
