"""What every epoch is checked for: catastrophic overfitting, and noise that has collapsed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.training import StopAfterAnEpoch, trainer

from floats_edge.data import Splits
from floats_edge.recipe import Attack, Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.training import check, steps
from floats_edge.training.check import Check
from floats_edge.training.check import check as run_check
from floats_edge.training.loop import Observer, train


class TestCollapse:
    def test_collapsed_noise_is_remarked(self) -> None:
        assert check.collapsed_remark({"a": 0.01, "b": -0.049}, 0.25) is not None
        assert check.collapsed_remark({"a": 0.01, "b": -0.06}, 0.25) is None
        assert check.collapsed_remark({}, 0.25) is None
        assert check.collapsed_remark({"a": 0.011}, 0.02) is None  # where a pretrained network begins
        assert check.collapsed_remark({"a": 0.009}, 0.02) is not None

    def test_remark_reaches_the_history(self, digits_recipe: Recipe, few: Splits, silent: Observer) -> None:
        subject = trainer(digits_recipe, few)
        for weight in subject.weights_by_layer.values():
            weight.alpha.data.fill_(0.0)
        assert any("collapsed" in remark for remark in subject.run_epoch(0, silent).remarks)


class TestOverfitting:
    @pytest.mark.parametrize(
        ("single_step", "robust", "overfitted"),
        [
            (80.0, 2.0, True),
            (40.0, 19.0, True),
            (40.0, 21.0, False),
            (12.0, 1.0, True),
            (8.0, 0.0, False),
            (None, 0.0, False),
        ],
    )
    def test_rule(self, single_step: float | None, robust: float, *, overfitted: bool) -> None:
        assert Check(clean=90.0, robust=robust, single_step=single_step).overfitted is overfitted

    def test_a_network_that_masks_its_gradients_is_caught(self, digits_recipe: Recipe, few: Splits) -> None:
        """Made by hand: right for images on the single step's grid (corners of the epsilon ball), wrong elsewhere."""
        subject = trainer(digits_recipe, few)
        images = torch.from_numpy(few.validation.as_float())
        labels = torch.from_numpy(few.validation.labels)

        class Masked:
            def at(self, lam: float) -> Any:
                return lambda batch: self.logits(batch)

            def logits(self, batch: torch.Tensor) -> torch.Tensor:
                moved = (batch - images).abs().amax((1, 2, 3))
                right = torch.nn.functional.one_hot(labels, 10).float()
                fooled = (moved <= 0.1501)[:, None] & (moved > 0)[:, None]
                return torch.where(fooled, -right, right) + 0 * batch.sum()

        config = subject.attack
        assert config.kind == "n-fgsm"
        generator = torch.Generator().manual_seed(0)
        result = run_check(Masked(), lambda: [(images, labels)], config, generator)  # type: ignore[arg-type]
        assert (result.clean, result.robust, result.single_step) == (100.0, 0.0, 100.0)
        assert result.overfitted

    @pytest.mark.parametrize("size", [1, 7, 16])
    def test_how_many_images_are_checked_at_once_changes_nothing(self, size: int, few: Splits) -> None:
        """Random starts included; a pixel for each class is the network, so that nothing depends on rounding."""
        images = few.validation

        class Pixels:
            def at(self, lam: float) -> Any:
                return lambda batch: batch.flatten(1)[:, 20:30]

        def checked(at_once: int) -> Check:
            def batches() -> Iterator[steps.Batch]:
                for pixels, labels in images.batches(at_once):
                    yield torch.from_numpy(pixels), torch.from_numpy(labels)

            config, generator = Attack(kind="n-fgsm", epsilon=0.05), torch.Generator().manual_seed(0)
            return run_check(Pixels(), batches, config, generator)  # type: ignore[arg-type]

        whole = checked(len(images))
        assert whole.clean > whole.robust > 0
        assert checked(size) == whole

    def test_pgd_training_is_not_checked_by_a_second_attack(
        self, digits_recipe: Recipe, few: Splits, silent: Observer
    ) -> None:
        epoch = trainer(digits_recipe, few, "attack.kind=pgd", "attack.steps=1").run_epoch(0, silent)
        assert epoch.single_step_accuracy is None
        assert not epoch.overfitted

    @pytest.mark.parametrize(("choice", "kinds"), [("warn", {"n-fgsm"}), ("pgd", {"n-fgsm", "pgd"})])
    def test_fallback_takes_over_in_the_next_epoch_also_after_a_resume(
        self,
        choice: str,
        kinds: set[str],
        digits_recipe: Recipe,
        few: Splits,
        silent: Observer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        recipe = override_recipe(digits_recipe, ("train.epochs=2", f"train.overfitting={choice}"))
        seen: list[dict[str, Any]] = []
        original = steps.attack

        def attack_seen(*args: Any, **config: Any) -> torch.Tensor:
            seen.append(config)
            return original(*args, **config)

        monkeypatch.setattr(steps, "attack", attack_seen)
        monkeypatch.setattr(check, "check", lambda *args: Check(clean=90.0, robust=1.0, single_step=60.0))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, few, tmp_path / "run", StopAfterAnEpoch())
        run = train(recipe, few, tmp_path / "run", silent, resume=True)
        assert {config["kind"] for config in seen} == kinds
        assert {config["epsilon"] for config in seen} == {0.15}
        assert {config["steps"] for config in seen if config["kind"] == "pgd"} <= {7}
        (remark,) = [text for text in run.checkpoint.history[0].remarks if "catastrophic" in text]
        assert "60.0 % under the attack of training, 1.0 % under PGD" in remark
        assert ("attack.kind=pgd and attack.steps=7" in remark) == (choice == "warn")
