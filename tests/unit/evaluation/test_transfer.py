"""Attacks at one lambda on the network at another."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.records import load_record
from floats_edge.artifacts.transfer import Transfer
from floats_edge.cli.main import cli
from floats_edge.data import Splits
from floats_edge.evaluation.robustness import attacked_images, evaluate
from floats_edge.evaluation.transfer import measure_transfer
from floats_edge.recipe import Attack
from floats_edge.report.transfer import transfer_remarks
from floats_edge.runtime.torch import run_predictor

PGD = Attack(kind="pgd", epsilon=0.15, steps=3)
LAMBDAS = (0.0, 1.0)


@pytest.fixture(scope="module")
def measured(digits_run: TrainingRun, digits: Splits) -> Transfer:
    network = run_predictor(digits_run)
    return measure_transfer(network, network, digits.test.first(100), LAMBDAS, PGD, seed=0, batch=40)


def test_counts_are_those_of_the_images(measured: Transfer, digits_run: TrainingRun, digits: Splits) -> None:
    network, images = run_predictor(digits_run), digits.test.first(100)

    def right(pixels: np.ndarray, lam: float) -> np.ndarray:
        network.set_lambda(lam)
        return network.predict(pixels).argmax(1) == images.labels

    clean = {lam: right(images.as_float(), lam) for lam in LAMBDAS}
    every = dict(clean)
    for place, attacked in enumerate(LAMBDAS):
        victims = np.concatenate(list(attacked_images(network, images, attacked, PGD, 0, 40)))
        for column, served in enumerate(LAMBDAS):
            standing = clean[served] & right(victims, served)
            assert measured.by_lambda[place][column] == standing.sum()
            every[served] = every[served] & standing
    assert measured.clean == tuple(clean[lam].sum() for lam in LAMBDAS)
    assert measured.by_all[0] <= every[0.0].sum()
    assert measured.by_all[1] <= every[1.0].sum()


def test_the_diagonal_is_what_evaluate_measures(measured: Transfer, digits_run: TrainingRun, digits: Splits) -> None:
    network = run_predictor(digits_run)
    shares = evaluate(network, network, digits.test.first(100), LAMBDAS, PGD, seed=0, batch=40)
    assert [share.robust.count for share in shares] == [measured.by_lambda[0][0], measured.by_lambda[1][1]]


def test_whoever_does_not_know_the_lambda_attacks_the_sum_of_the_losses(
    digits_run: TrainingRun, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of it is that of the summed gradients."""
    images, seen = digits.test.first(20), []
    network, twin = run_predictor(digits_run), run_predictor(digits_run)
    predict = network.predict
    monkeypatch.setattr(network, "predict", lambda pixels: seen.append(pixels) or predict(pixels))
    measure_transfer(network, twin, images, LAMBDAS, Attack(kind="pgd", epsilon=0.15, steps=1), seed=0)
    clean, by_zero, by_one, by_sum = (torch.from_numpy(pixels) for pixels in seen[:4])
    generator = torch.Generator().manual_seed(0)
    start = (clean + torch.empty_like(clean).uniform_(-0.15, 0.15, generator=generator)).clamp(0, 1)
    gradients = []
    for lam in LAMBDAS:
        twin.set_lambda(lam)
        point = start.clone().requires_grad_()
        cross_entropy(twin.network(point), torch.from_numpy(images.labels), reduction="sum").backward()
        gradients.append(point.grad)
    for found, gradient in ((by_zero, gradients[0]), (by_one, gradients[1]), (by_sum, sum(gradients))):
        moved = start + 0.15 / 4 * gradient.sign()
        wanted = torch.minimum(torch.maximum(moved, (clean - 0.15).clamp_min(0)), (clean + 0.15).clamp_max(1))
        assert (found - wanted).abs().gt(1e-6).float().mean() < 0.001  # signs of what is zero but for rounding


MATRIX = {
    "lambdas": (0.0, 1.0),
    "images": 100,
    "clean": (90, 80),
    "by_lambda": ((10, 50), (60, 40)),
    "by_sum": (20, 45),
    "by_all": (8, 35),
}


def test_what_a_drawn_lambda_serves() -> None:
    assert Transfer.model_validate(MATRIX).drawn == (85.0, 32.5)


def test_masked_gradients_are_told() -> None:
    assert Transfer.model_validate(MATRIX).masked == ()
    assert Transfer.model_validate(MATRIX | {"by_lambda": ((10, 35), (60, 40))}).masked == ()
    doubtful = Transfer.model_validate(
        MATRIX | {"by_lambda": ((10, 25), (60, 40)), "by_sum": (20, 22), "by_all": (8, 20)}
    )
    assert doubtful.masked == ((0.0, 1.0), (None, 1.0))
    first, second = transfer_remarks(doubtful)
    assert first.startswith("Masked gradients at λ = 1: an attack made at λ = 0 fools more")
    assert "on the sum over λ" in second


@pytest.mark.parametrize(
    "changes",
    [
        {"by_all": (11, 35)},
        {"by_sum": (91, 45)},
        {"clean": (101, 80)},
        {"by_lambda": ((10, 50),)},
        {"by_lambda": ((10, 50, 1), (60, 40, 1))},
        {"lambdas": (0.0,)},
    ],
)
def test_counts_that_cannot_be_are_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        Transfer.model_validate(MATRIX | changes)


def command(*words: object):
    return CliRunner().invoke(cli, ["evaluate", *map(str, words)])


def test_the_command_prints_and_keeps_the_matrix(digits_run: TrainingRun, tmp_path) -> None:
    out = tmp_path / "e.json"
    words = ("--images", 60, "--steps", 2, "--lambda", 0, "--lambda", 1, "--transfer", "--device", "cpu", "-o", out)
    result = command(digits_run.path, *words)
    assert result.exit_code == 0, result.output
    assert "Attacks across lambda" in result.output
    record = load_record(out)
    assert record.transfer is not None
    assert record.transfer.images == 60
    assert record.transfer.lambdas == (0.0, 1.0)


def test_what_has_no_transfer_is_refused(digits_run: TrainingRun, tmp_path) -> None:
    out = ("-o", tmp_path / "e.json", "--device", "cpu")
    alone = command(digits_run.path, "--transfer", "--lambda", 0.5, *out)
    assert alone.exit_code == 1
    assert "there is no other" in alone.stderr
    auto = command(digits_run.path, "--transfer", "--attack", "autoattack", *out)
    assert auto.exit_code == 1
    assert "measured by PGD" in auto.stderr
    assert not (tmp_path / "e.json").exists()
