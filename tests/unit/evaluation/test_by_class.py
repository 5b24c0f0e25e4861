import numpy as np
import pytest
import torch

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.reliability import BINS
from floats_edge.data import Splits
from floats_edge.errors import RecipeError
from floats_edge.evaluation.by_class import count_by_class
from floats_edge.evaluation.robustness import attacked_images, evaluate, judge
from floats_edge.recipe import Attack
from floats_edge.runtime.torch import run_predictor

PGD = Attack(kind="pgd", epsilon=0.15, steps=5)


def test_counts_are_those_of_the_predictions(digits_run: TrainingRun, digits: Splits) -> None:
    network, images, labels = run_predictor(digits_run), digits.test.first(200), digits.labels

    def judged(lam: float):
        return judge(network, network, images, lam, PGD, seed=0, batch=64)

    results = count_by_class(judged, (0.0, 1.0), labels)
    shares = evaluate(network, network, images, (0.0, 1.0), PGD, seed=0, batch=64)
    assert [(r.clean, r.robust) for r in results] == [(r.clean, r.robust) for r in shares]
    attacked = np.concatenate(list(attacked_images(network, images, 1.0, PGD, 0, 64)))
    for answers, pixels in (
        (results[1].clean_answers, images.as_float()),
        (results[1].attacked_answers, attacked),
    ):
        found = np.zeros((10, 10), int)
        np.add.at(found, (images.labels, network.predict(pixels).argmax(1)), 1)
        listed = np.array([[answers[truth].get(answer, 0) for answer in labels] for truth in labels])
        np.testing.assert_array_equal(listed, found)
    for found, pixels in (
        (results[1].clean_reliability, images.as_float()),
        (results[1].attacked_reliability, attacked),
    ):
        logits = torch.from_numpy(network.predict(pixels)).double()
        sure, guesses = (tensor.numpy() for tensor in logits.softmax(1).max(1))
        in_bin = [(sure > index / BINS) & (sure <= (index + 1) / BINS) for index in range(BINS)]
        right = guesses == images.labels
        error = sum(abs(sure[part].sum() - right[part].sum()) for part in in_bin) / len(images)
        assert found.error == pytest.approx(100 * error)
        assert [part.images for part in found.bins] == [int(part.sum()) for part in in_bin]
    assert results[1].images == dict(zip(labels, np.bincount(images.labels).tolist(), strict=True))
    assert list(results[1].clean_answers) == list(labels)


def test_more_figures_than_a_record_holds_are_refused_before_anything_is_judged() -> None:
    labels = [str(index) for index in range(2000)]

    def judged(lam: float):
        pytest.fail("an image was judged")

    with pytest.raises(RecipeError, match="2000 classes at 51 lambdas") as refusal:
        count_by_class(judged, np.linspace(0, 1, 51).tolist(), labels)
    assert "at most 50 lambdas" in refusal.value.fix
