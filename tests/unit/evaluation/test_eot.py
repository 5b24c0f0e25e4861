"""Attacks on resampled noise: gradients averaged over draws (EOT), on a network trained with it."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.records import Evaluation, load_record
from floats_edge.attacks import pgd
from floats_edge.cli.main import cli
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError
from floats_edge.evaluation.robustness import evaluate, settle
from floats_edge.recipe import Attack, Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.torch import ResampledPredictor, resampled_predictor, run_predictor
from floats_edge.training.loop import Observer, train

PGD = Attack(kind="pgd", epsilon=0.15, steps=7)
NOISY = ("sparsity.density=1", "condition.noise=resample", "condition.alpha=0.5")


@pytest.fixture(scope="module")
def noisy_run(
    digits_recipe: Recipe, digits: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    """Trained with noise of half the weights' standard deviation, a fresh draw for every step."""
    return train(override_recipe(digits_recipe, NOISY), digits, tmp_path_factory.mktemp("noisy") / "run", silent)


def settled(run: TrainingRun, digits: Splits, seed: int = 0) -> ResampledPredictor:
    predictor = resampled_predictor(run, seed)
    settle(predictor, digits.train, run.checkpoint.recipe.attack, seed)
    return predictor


def test_on_frozen_noise_it_is_pgd(noisy_run: TrainingRun, digits: Splits) -> None:
    network = run_predictor(noisy_run)
    network.set_lambda(1.0)
    images, labels = torch.from_numpy(digits.test.as_float(slice(64))), torch.from_numpy(digits.test.labels[:64])
    once, thrice = (
        pgd(network.network, images, labels, torch.Generator().manual_seed(0), 0.15, 0.04, steps=3, draws=draws)
        for draws in (1, 3)
    )
    assert torch.equal(once, thrice)
    few = digits.test.first(100)
    assert evaluate(network, network, few, (1.0,), PGD, 0) == evaluate(network, network, few, (1.0,), PGD, 0, eot=1)


def test_gradients_are_averaged_over_the_draws() -> None:
    """Where two draws pull in opposite directions their mean stays: only the random start moves the image."""
    pull = iter([1.0, -1.0] * 50)

    def network(images: Tensor) -> Tensor:
        total = images.flatten(1).sum(1, keepdim=True)
        shift = next(pull) * (total - total.detach())  # zero, with a slope
        return torch.cat((shift, torch.zeros_like(shift)), dim=1)

    images = torch.full((4, 1, 3, 3), 0.5)
    labels = torch.zeros(4, dtype=torch.int64)
    start = pgd(network, images, labels, torch.Generator().manual_seed(0), 0.1, 0.0)
    stays = pgd(network, images, labels, torch.Generator().manual_seed(0), 0.1, 0.02, steps=4, draws=2)
    moves = pgd(network, images, labels, torch.Generator().manual_seed(0), 0.1, 0.02, steps=3, draws=1)
    torch.testing.assert_close(stays, start)
    assert (moves - start).abs().max() > 0.01


def test_it_is_at_least_as_strong_as_a_fresh_draw_for_every_step(noisy_run: TrainingRun, digits: Splits) -> None:
    """Within two standard errors of the difference of two shares."""
    images = digits.test.first(200)

    def robust(eot: int) -> int:
        counts = []
        for seed in range(2):
            network = settled(noisy_run, digits, seed)
            counts.append(evaluate(network, network, images, (1.0,), PGD, seed, eot=eot)[0].robust.count)
        return sum(counts)

    single, averaged = robust(1), robust(5)
    share = (single + averaged) / (4 * len(images))
    assert averaged <= single + 2 * math.sqrt(4 * len(images) * share * (1 - share))


def test_every_batch_has_a_draw_of_its_own_and_the_seed_repeats_them(noisy_run: TrainingRun, digits: Splits) -> None:
    images = digits.test.as_float(slice(32))
    network, frozen = settled(noisy_run, digits), run_predictor(noisy_run)
    network.set_lambda(1.0)
    first, second = network.predict(images), network.predict(images)
    network.set_lambda(1.0)
    assert abs(first - second).max() > 0.1
    assert (network.predict(images) == first).all()
    network.set_lambda(0.0)
    assert (network.predict(images) == frozen.predict(images)).all(), "there is no noise at lambda 0"


def test_at_lambda_0_there_is_nothing_to_average_over(noisy_run: TrainingRun, digits: Splits) -> None:
    fresh, images = settled(noisy_run, digits), digits.test.first(32)
    asked = {0.0: 0, 1.0: 0}

    class Counting:
        device = fresh.device

        def network(self, pixels: Tensor) -> Tensor:
            asked[fresh.lam] += 1
            return fresh.network(pixels)

        def set_lambda(self, lam: float) -> float:
            return fresh.set_lambda(lam)

    evaluate(run_predictor(noisy_run), Counting(), images, tuple(asked), PGD, 0, eot=3)
    assert asked == {0.0: PGD.steps, 1.0: 3 * PGD.steps}
    fresh.set_lambda(0.0)
    pixels, labels = torch.from_numpy(images.as_float()), torch.from_numpy(images.labels)
    once, thrice = (
        pgd(fresh.network, pixels, labels, torch.Generator().manual_seed(0), 0.15, 0.04, steps=3, draws=draws)
        for draws in (1, 3)
    )
    assert torch.equal(once, thrice)


def test_settling_fits_batchnorm_to_fresh_draws(noisy_run: TrainingRun, digits: Splits) -> None:
    images = digits.test.first(300)
    unsettled, ready = resampled_predictor(noisy_run, 0), settled(noisy_run, digits)
    losses = [evaluate(n, n, images, (1.0,), Attack(kind="fgsm-rs", epsilon=1e-6), 0)[0] for n in (unsettled, ready)]
    assert losses[0].clean.count < losses[1].clean.count


def test_a_network_without_noise_is_refused(
    digits_recipe: Recipe, digits: Splits, silent: Observer, tmp_path: Path
) -> None:
    options = ("method=standard", "sparsity.density=1", "train.epochs=1")
    run = train(override_recipe(digits_recipe, options), digits, tmp_path / "run", silent)
    with pytest.raises(ArtifactError, match="no noise in it to resample") as caught:
        resampled_predictor(run, 0)
    assert "method: float" in caught.value.fix


class TestCommand:
    @staticmethod
    def evaluate(path: Path, out: Path, *options: str) -> Result:
        few = ("--lambda", "1", "--images", "40", "--device", "cpu")
        return CliRunner().invoke(cli, ["evaluate", str(path), *few, "-o", str(out), *options])

    def test_record_and_report_say_what_was_attacked(self, noisy_run: TrainingRun, tmp_path: Path) -> None:
        result = self.evaluate(noisy_run.path, tmp_path / "e.json", "--noise", "resample", "--eot", "2")
        assert result.exit_code == 0, result.output
        record = load_record(tmp_path / "e.json")
        assert isinstance(record, Evaluation)
        assert (record.noise, record.eot) == ("resample", 2)
        text = " ".join(result.output.split())
        assert "Attack: EOT-2 PGD-5" in text
        assert "Noise: a fresh draw for every batch" in text

    def test_the_frozen_draw_is_the_default(self, noisy_run: TrainingRun, tmp_path: Path) -> None:
        result = self.evaluate(noisy_run.path, tmp_path / "e.json")
        values = json.loads((tmp_path / "e.json").read_text())
        assert (values["noise"], values["eot"]) == ("frozen", 1)
        text = " ".join(result.output.split())
        assert "Attack: PGD-5" in text
        assert "Noise: the frozen draw, as deployed" in text

    def test_a_bundle_is_evaluated_as_deployed(self, bundles: Callable[..., Bundle], tmp_path: Path) -> None:
        result = self.evaluate(bundles("bound").path, tmp_path / "e.json", "--noise", "resample")
        assert result.exit_code == 1
        assert "computes with its frozen noise" in result.stderr
        assert "floats-edge evaluate RUN --noise resample" in result.stderr

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--eot", "3"], "goes with --noise resample"),
            (["--noise", "resample", "--attack", "autoattack"], "--attack pgd"),
            (["--noise", "fresh"], "is not one of"),
            (["--noise", "resample", "--eot", "0"], "--eot"),
        ],
    )
    def test_what_does_not_go_together(
        self, noisy_run: TrainingRun, tmp_path: Path, options: list[str], message: str
    ) -> None:
        result = self.evaluate(noisy_run.path, tmp_path / "e.json", *options)
        assert result.exit_code == 2
        assert message in result.stderr
        assert not (tmp_path / "e.json").exists()
