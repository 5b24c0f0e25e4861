"""OAT: the published sampling and loss, and what its networks can and cannot do afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.training import OAT, trainer

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.errors import ArtifactError, LambdaError
from floats_edge.evaluation.robustness import evaluate
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.torch import trained_predictor
from floats_edge.training import steps
from floats_edge.training.loop import Observer, Trainer, train


@pytest.fixture(scope="module")
def runs(
    digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainingRun]:
    variants = {"published": OAT, "single-bare": (*OAT, "oat.encoding=none", "oat.batchnorm=single")}
    folder = tmp_path_factory.mktemp("oat")
    return {
        name: train(override_recipe(digits_recipe, options), few, folder / name, silent)
        for name, options in variants.items()
    }


class TestOat:
    def step(self, digits_recipe: Recipe, few: Splits, *options: str) -> tuple[Trainer, steps.OatStep]:
        subject = trainer(digits_recipe, few, *OAT, *options)
        assert isinstance(subject.step, steps.OatStep)
        return subject, subject.step

    def test_draws_of_lambda(self, digits_recipe: Recipe, few: Splits) -> None:
        """A sixth of the batch, rounded up, at 0; the others spread evenly over the other choices."""
        _, step = self.step(digits_recipe, few, "oat.lambdas=[0.1,0,0.2,0.3,0.4,1]")
        choice = step._choose(6000, 1000, torch.Generator().manual_seed(0))
        lambdas = step.lambdas[choice]
        assert not lambdas[:1000].any()
        assert lambdas[1000:].min() > 0
        counts = lambdas[1000:].unique(return_counts=True)[1]
        assert counts.tolist() == pytest.approx([1000] * 5, rel=0.15)

    def test_loss_is_as_published(self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against the published formula, written out; the attack sees those of lambda > 0, in inference mode."""
        subject, step = self.step(digits_recipe, few)
        images, labels = next(subject.feed.batches(0))
        attacked: list[Any] = []

        def attack_seen(network: Any, victims: torch.Tensor, truths: torch.Tensor, *_: Any, **config: Any) -> Any:
            before = [buffer.clone() for buffer in subject.network.buffers()]
            logits = network(victims)
            assert not logits.requires_grad
            assert all(map(torch.equal, before, subject.network.buffers())), "BatchNorm must not learn from the attack"
            attacked.append((victims, truths))
            return (victims + 0.1).clamp(0, 1)

        monkeypatch.setattr(steps, "attack", attack_seen)
        choice = step._choose(16, 3, torch.Generator().manual_seed(5))
        total = step.losses(images, labels, subject.attack, torch.Generator().manual_seed(5)).total.item()

        assert torch.equal(attacked[0][0], images[3:])
        assert torch.equal(attacked[0][1], labels[3:])
        lam = step.lambdas[choice]
        subject.network.train()
        entropy = torch.nn.CrossEntropyLoss(reduction="none")
        clean = entropy(step.network.mixed(images, choice, 3), labels)
        robust = entropy(step.network.mixed((images[3:] + 0.1).clamp(0, 1), choice[3:], 0), labels[3:])
        robust = torch.cat((torch.zeros(3), robust))
        assert total == pytest.approx(torch.mean((1 - lam) * clean + lam * robust).item(), rel=1e-5)

    def test_serving_leaves_the_network_in_training(self, digits_recipe: Recipe, few: Splits) -> None:
        subject, step = self.step(digits_recipe, few)
        subject.network.train()
        step.at(1.0)(torch.rand(2, 1, 8, 8))
        assert subject.network.training
        assert all(parameter.requires_grad for parameter in subject.network.parameters())

    def test_one_lambda_is_a_batch_of_equal_ones(self, digits_recipe: Recipe, few: Splits) -> None:
        subject, step = self.step(digits_recipe, few)
        subject.network.eval()
        images = torch.rand(4, 1, 8, 8)
        for index, lam in enumerate(step.network.oat.lambdas):
            mixed = step.network.mixed(images, torch.full((4,), index), 4 if lam == 0 else 0)
            torch.testing.assert_close(step.network(images, lam), mixed)

    def test_evaluated_unfolded_at_the_lambdas_it_knows(
        self, digits_recipe: Recipe, few: Splits, runs: dict[str, TrainingRun]
    ) -> None:
        network = trained_predictor(runs["published"])
        assert network.lambdas == (0.0, 0.1, 0.2, 0.3, 0.4, 1.0)
        with pytest.raises(LambdaError, match=r"knows no 0\.5") as caught:
            network.set_lambda(0.5)
        assert "oat.encoding=none" in caught.value.fix
        images = few.validation.as_float()
        subject = trainer(digits_recipe, few, *OAT)
        subject.restore(runs["published"].weights(), runs["published"].state())
        for lam in (0.2, 1.0, 0.0):
            network.set_lambda(lam)
            np.testing.assert_allclose(
                network.predict(images), subject.step.at(lam)(torch.from_numpy(images)).numpy(), atol=1e-5
            )
        results = evaluate(network, network, few.validation, (0.0, 1.0), digits_recipe.evaluate.attack, 0)
        assert [result.lam for result in results] == [0.0, 1.0]

    def test_bare_lambda_serves_any(self, runs: dict[str, TrainingRun]) -> None:
        network = trained_predictor(runs["single-bare"])
        images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
        logits = []
        for lam in (0.15, 0.9):
            network.set_lambda(lam)
            logits.append(network.predict(images))
        assert np.abs(logits[0] - logits[1]).max() > 1e-4

    def test_encoding_is_that_of_the_run(self, runs: dict[str, TrainingRun]) -> None:
        assert runs["published"].weights()["codes"].shape == (6, 128)

    def test_export_is_refused(self, runs: dict[str, TrainingRun], tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="baseline that cannot be folded") as caught:
            export(runs["published"].path, tmp_path / "bundle", ExportRequest())
        assert "floats-edge evaluate" in caught.value.fix
        assert not (tmp_path / "bundle").exists()
