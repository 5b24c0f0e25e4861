"""Training on real digits: what is computed, what is written, and that it can be stopped anywhere."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import training
from torch import nn

from floats_edge.artifacts.checkpoint import Epoch, TrainingRun, open_run
from floats_edge.artifacts.files import Tensors
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError, OutputError, RecipeError
from floats_edge.method.condition import fold
from floats_edge.method.fold import weights_at
from floats_edge.networks.spec import Code
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import load_recipe, override_recipe
from floats_edge.training import steps
from floats_edge.training.feed import Feed
from floats_edge.training.loop import Observer, Trainer, train
from floats_edge.training.stage import Unwatched
from floats_edge.training.statistics import image_spec

SHORT = ("train.epochs=4", "sparsity.update_every=0.4", "data.crop=1", "data.flip=true")
TIMES = {"seconds", "images_per_s"}


class StopAt(Unwatched):
    """An observer with a finger on Ctrl-C."""

    def __init__(self, step: int | None = None, epoch: int | None = None) -> None:
        self.step = step
        self.epoch = epoch

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        if step == self.step:
            raise KeyboardInterrupt

    def on_epoch(self, epoch: Epoch) -> None:
        if epoch.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def recipe(digits_recipe: Recipe) -> Recipe:
    """With augmentation and many mask updates, so that every source of chance takes part."""
    return override_recipe(digits_recipe, SHORT)


@pytest.fixture(scope="module")
def uninterrupted(
    recipe: Recipe, few: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    return train(recipe, few, tmp_path_factory.mktemp("uninterrupted") / "run", silent)


def metrics(run: TrainingRun) -> list[dict[str, Any]]:
    return [epoch.model_dump(exclude=TIMES) for epoch in run.checkpoint.history]


def assert_same_bits(first: TrainingRun, second: TrainingRun) -> None:
    assert metrics(first) == metrics(second)
    for one, other in ((first.weights(), second.weights()), (first.state(), second.state())):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights_after_an_epoch(recipe: Recipe, few: Splits, folder: Path) -> dict[str, bytes]:
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, folder, StopAt(epoch=1))
    return {name: array.tobytes() for name, array in open_run(folder).weights().items()}


class TestResume:
    @pytest.mark.parametrize(
        "stop", [StopAt(epoch=1), StopAt(epoch=2), StopAt(step=1), StopAt(step=13)], ids=lambda s: str(vars(s))
    )
    def test_bit_for_bit_as_if_it_had_never_stopped(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun, tmp_path: Path, stop: StopAt
    ) -> None:
        """Between epochs and in the middle of one, before the first checkpoint and after others."""
        with pytest.raises(KeyboardInterrupt):
            train(recipe, few, tmp_path / "run", stop)
        torch.manual_seed(12345)
        np.random.default_rng(12345)
        assert_same_bits(train(recipe, few, tmp_path / "run", silent, resume=True), uninterrupted)
        assert_same_bits(open_run(tmp_path / "run"), uninterrupted)

    def test_the_comparison_can_fail(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun, tmp_path: Path
    ) -> None:
        other = train(override_recipe(recipe, ("seed=1",)), few, tmp_path / "run", silent)
        with pytest.raises(AssertionError):
            assert_same_bits(other, uninterrupted)

    def test_a_finished_run_stays_as_it_is(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun
    ) -> None:
        before = contents(uninterrupted.path)
        assert train(recipe, few, uninterrupted.path, silent, resume=True).checkpoint == uninterrupted.checkpoint
        assert contents(uninterrupted.path) == before

    def test_without_resume_an_existing_run_is_refused(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun
    ) -> None:
        before = contents(uninterrupted.path)
        with pytest.raises(OutputError, match="already holds a run") as caught:
            train(recipe, few, uninterrupted.path, silent)
        assert "--resume" in caught.value.fix
        assert contents(uninterrupted.path) == before

    def test_by_another_recipe_is_refused(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun
    ) -> None:
        before = contents(uninterrupted.path)
        with pytest.raises(ArtifactError, match="another recipe"):
            train(override_recipe(recipe, ("train.epochs=9",)), few, uninterrupted.path, silent, resume=True)
        assert contents(uninterrupted.path) == before

    def test_names_what_differs(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun
    ) -> None:
        other = override_recipe(recipe, ("seed=5", "train.lr=0.01", "sparsity.density=0.5", "evaluate.images=7"))
        with pytest.raises(ArtifactError, match=r"another recipe: seed, sparsity\.density, train\.lr differ"):
            train(other, few, uninterrupted.path, silent, resume=True)

    @pytest.mark.parametrize(
        ("option", "epochs"),
        [
            ("evaluate.images=7", 1),
            ("evaluate.lambdas=[0,1]", 4),
            ("evaluate.attack={kind: pgd, epsilon: 2/255, steps: 3}", 4),
            ("name=another", 4),
            ("data.root=/elsewhere", 4),
        ],
    )
    def test_what_training_does_not_read_may_have_changed(
        self,
        recipe: Recipe,
        few: Splits,
        silent: Observer,
        uninterrupted: TrainingRun,
        tmp_path: Path,
        option: str,
        epochs: int,
    ) -> None:
        """The run is then one of the recipe that was asked for, its bits those of the recipe before."""
        folder = Path(shutil.copytree(uninterrupted.path, tmp_path / "run"))
        if epochs < 4:
            shutil.rmtree(folder)
            with pytest.raises(KeyboardInterrupt):
                train(recipe, few, folder, StopAt(epoch=epochs))
        changed = override_recipe(recipe, (option,))
        run = train(changed, few, folder, silent, resume=True)
        assert_same_bits(run, uninterrupted)
        assert run.weights_sha256 == uninterrupted.weights_sha256
        assert open_run(folder).checkpoint.recipe == changed == load_recipe(folder / "recipe.yaml")

    def test_on_other_images_is_refused(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun
    ) -> None:
        for other in (replace(few, train=few.train.first(64)), replace(few, labels=tuple("abcdefghij"))):
            with pytest.raises(ArtifactError, match="other images"):
                train(recipe, other, uninterrupted.path, silent, resume=True)

    def test_of_a_damaged_run_is_refused(
        self, recipe: Recipe, few: Splits, silent: Observer, uninterrupted: TrainingRun, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(uninterrupted.path, tmp_path / "run"))
        (folder / uninterrupted.checkpoint.state).unlink()
        with pytest.raises(ArtifactError, match="is missing"):
            train(recipe, few, folder, silent, resume=True)

    def test_where_there_is_nothing_starts(self, recipe: Recipe, few: Splits, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, few, tmp_path / "run", StopAt(epoch=1), resume=True)
        assert len(open_run(tmp_path / "run").checkpoint.history) == 1


class TestRefused:
    def test_batch_larger_than_the_data(self, recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="larger than the 80 training images") as caught:
            train(override_recipe(recipe, ("train.batch_size=82",)), few, tmp_path / "run", silent)
        assert "train.batch_size" in caught.value.fix
        assert not (tmp_path / "run").exists()

    def test_density_that_empties_a_layer(self, recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="leaves no weight in") as caught:
            train(override_recipe(recipe, ("sparsity.density=0.0001",)), few, tmp_path / "run", silent)
        assert "sparsity.density" in caught.value.fix
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("options", [(), ("sparsity.layer_densities=importance", "sparsity.update_every=0.2")])
    def test_training_that_diverges(
        self, recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        """Masks may move once more, by gradients that are no numbers, before the loss is read."""
        wild = override_recipe(recipe, ("train.lr=1e12", "train.warmup=0", *options))
        with pytest.raises(RecipeError, match="training diverged: the loss of step") as caught:
            train(wild, few, tmp_path / "run", silent)
        assert "train.lr" in caught.value.fix
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("method", ["float", "standard", "oat"])
    def test_a_network_destroyed_by_the_last_step(
        self, recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path, method: str
    ) -> None:
        """Every loss is a number, for it is computed before the update; the epoch before that one is kept."""
        options = ("train.batch_size=80", "train.epochs=2", "train.warmup=0.5", "sparsity={}", f"method={method}")
        serves = ("evaluate.lambdas=[0,1]",)
        gentle = override_recipe(recipe, (*options, *serves, "train.lr=0.01"))
        kept = weights_after_an_epoch(gentle, few, tmp_path / "gentle")
        wild = override_recipe(recipe, (*options, *serves, "train.lr=1e38"))
        with pytest.raises(RecipeError, match=r"training diverged: .* no numbers") as caught:
            train(wild, few, tmp_path / "run", silent)
        assert "train.lr" in caught.value.fix
        run = open_run(tmp_path / "run")
        assert len(run.checkpoint.history) == 1
        assert {name: array.tobytes() for name, array in run.weights().items()} == kept

    def test_statistics_that_are_no_numbers(self, recipe: Recipe, few: Splits, silent: Observer) -> None:
        trainer = Trainer(recipe, few, image_spec(recipe, few), torch.device("cpu"))
        trainer.weights_by_layer["stem"].alpha.data.fill_(float("inf"))
        trainer.update = lambda *_: steps.Losses(torch.tensor(1.0), None, None)  # type: ignore[method-assign]
        with pytest.raises(RecipeError, match=r"stem\.weight\.alpha holds values that are no numbers"):
            trainer.run_epoch(0, silent)

    def test_logits_that_are_no_numbers(self, recipe: Recipe, few: Splits, silent: Observer) -> None:
        """Though all parameters are."""
        trainer = Trainer(recipe, few, image_spec(recipe, few), torch.device("cpu"))
        trainer.update = lambda *_: steps.Losses(torch.tensor(1.0), None, None)  # type: ignore[method-assign]
        for weight in trainer.weights_by_layer.values():
            weight.theta.data.mul_(1e30)
        with pytest.raises(RecipeError, match="gives logits that are no numbers"):
            trainer.run_epoch(0, silent)

    def test_output_that_cannot_be_written(self, recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError):
            train(override_recipe(recipe, ("train.epochs=1",)), few, tmp_path / "file" / "run", silent)
        assert (tmp_path / "file").read_text() == "mine"


class TestStep:
    def test_half_is_clean_at_lambda_0_and_half_attacked_at_lambda_1(
        self, recipe: Recipe, few: Splits, silent: Observer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = Trainer(recipe, few, image_spec(recipe, few), torch.device("cpu"))
        batches, attacked, trained = [], [], []

        def batches_seen(epoch: int) -> Any:
            for images, labels in original_batches(epoch):
                batches.append((images, labels))
                yield images, labels

        def attack_seen(network: Any, images: torch.Tensor, labels: torch.Tensor, *args: Any, **config: Any) -> Any:
            folded_at_1 = weights_at(fold(trainer.step.layers, recipe.condition.rule), 1.0)
            assert all(torch.equal(p, folded_at_1[name].detach()) for name, p in network.named_parameters())
            assert config == {**recipe.attack.model_dump(exclude_none=True), "deviation": None}
            result = original_attack(network, images, labels, *args, **config)
            attacked.append((images, labels, result))
            return result

        original_batches, original_attack = trainer.feed.batches, steps.attack
        monkeypatch.setattr(Feed, "batches", lambda _, epoch: batches_seen(epoch))
        monkeypatch.setattr(steps, "attack", attack_seen)
        trainer.network.register_forward_pre_hook(
            lambda module, args: trained.append((*args, trainer.step.knob.lam, module.training)), prepend=True
        )
        trainer.run_epoch(0, silent)

        assert len(batches) == len(attacked) == 5
        assert len(trained) == 10
        for (images, labels), (victims, truths, result), clean, robust in zip(
            batches, attacked, trained[0::2], trained[1::2], strict=True
        ):
            assert images.shape == (16, 1, 8, 8)
            assert torch.equal(victims, images[8:])
            assert torch.equal(truths, labels[8:])
            assert torch.equal(clean[0], images[:8])
            assert clean[1:] == (0.0, True)
            assert torch.equal(robust[0], result)
            assert robust[1:] == (1.0, True)

    def test_losses_are_read_a_step_late_and_none_is_lost(self, recipe: Recipe, few: Splits) -> None:
        trainer, seen, told = training.trainer(recipe, few), [], []
        update = trainer.update

        def watched(*batch: Any) -> steps.Losses:
            seen.append(update(*batch))
            return seen[-1]

        class Listener(Unwatched):
            def on_step(self, step: int, steps_in_all: int, loss: float, images_per_s: float) -> None:
                assert loss == seen[step - 1].total.item()
                told.append((step, len(seen)))

        trainer.update = watched  # type: ignore[method-assign]
        epoch = trainer.run_epoch(0, Listener())
        assert told == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 5)]
        assert epoch.loss == sum(losses.total.item() for losses in seen) / 5
        assert epoch.clean_loss == sum(losses.clean.item() for losses in seen) / 5
        assert epoch.robust_loss == sum(losses.robust.item() for losses in seen) / 5

    def test_what_layers_draw_is_the_seeds(self, recipe: Recipe, few: Splits, silent: Observer) -> None:
        """Dropout draws from torch's own generator, which is the caller's."""

        def trained(seed: int, chance: int) -> Tensors:
            torch.manual_seed(chance)
            module = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 10)
            )
            module.load_state_dict({name: torch.full_like(t, 0.1) for name, t in module.state_dict().items()})
            given = override_recipe(recipe, (f"seed={seed}", "model={source: given, name: Sequential}", "sparsity={}"))
            subject = Trainer(given, few, image_spec(given, few), torch.device("cpu"), code=Code(module=module))
            torch.manual_seed(chance)
            before = torch.get_rng_state()
            subject.run_epoch(0, silent)
            assert torch.equal(torch.get_rng_state(), before)
            return subject.weights()

        first, again, other = trained(0, 1), trained(0, 2), trained(1, 1)
        assert all(first[name].tobytes() == again[name].tobytes() for name in first)
        assert any(first[name].tobytes() != other[name].tobytes() for name in first)

    def test_learning_rate_warms_up_then_follows_a_cosine(self, recipe: Recipe, few: Splits, silent: Observer) -> None:
        trainer = Trainer(recipe, few, image_spec(recipe, few), torch.device("cpu"))
        update, steps_rates = trainer.update, []

        def watched(*batch: Any) -> steps.Losses:
            steps_rates.append([group["lr"] for group in trainer.optimizer.param_groups])
            return update(*batch)

        trainer.update = watched  # type: ignore[method-assign]
        for epoch in range(4):
            trainer.run_epoch(epoch, silent)
        (rates,) = {tuple(group) for group in zip(*steps_rates, strict=True)}
        rates = np.array(rates)
        count, peak = 20, 4  # steps, of which a fifth warms up
        assert len(rates) == count
        np.testing.assert_allclose(rates[: peak + 1], 0.05 * np.arange(peak + 1) / peak)
        progress = (np.arange(peak, count) - peak) / (count - peak)
        np.testing.assert_allclose(rates[peak:], 0.05 * (1 + np.cos(np.pi * progress)) / 2)

    @pytest.mark.parametrize("decayed", ["weights", "all"])
    def test_weight_decay_spares_biases_alpha_and_batchnorm_unless_told(
        self, decayed: str, recipe: Recipe, few: Splits
    ) -> None:
        trainer = training.trainer(recipe, few, f"train.decayed={decayed}")
        names = {id(parameter): name for name, parameter in trainer.network.named_parameters()}
        decay = {
            names[id(parameter)]: group["weight_decay"]
            for group in trainer.optimizer.param_groups
            for parameter in group["params"]
        }
        assert decay.keys() == set(names.values())
        assert {name for name, value in decay.items() if value > 0} == {
            name for name in names.values() if decayed == "all" or name.endswith("theta")
        }


class TestGlobalGenerator:
    """Torch's global generator is the caller's: training neither reads nor moves it."""

    def test_it_is_left_alone(self, recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path) -> None:
        torch.manual_seed(31)
        before = torch.get_rng_state()
        train(override_recipe(recipe, ("train.epochs=1",)), few, tmp_path / "run", silent)
        assert torch.equal(torch.get_rng_state(), before)

    def test_initial_weights_are_a_function_of_the_recipes_seed(self, recipe: Recipe, few: Splits) -> None:
        def weights(seed: int, of_caller: int) -> dict[str, bytes]:
            torch.manual_seed(of_caller)
            start = training.trainer(recipe, few, f"seed={seed}").weights()
            return {name: array.tobytes() for name, array in start.items()}

        assert weights(3, of_caller=0) == weights(3, of_caller=1)
        assert weights(3, of_caller=0)["stem.weight.theta"] != weights(4, of_caller=0)["stem.weight.theta"]


class TestResult:
    def test_it_learns(self, digits_run: TrainingRun) -> None:
        first, last = digits_run.checkpoint.history
        assert last.loss < first.loss < 2.3
        assert last.clean_accuracy > 80
        assert last.robust_accuracy > 20

    def test_robust_accuracy_is_at_most_clean(self, digits_run: TrainingRun) -> None:
        for epoch in digits_run.checkpoint.history:
            assert epoch.robust_accuracy < epoch.clean_accuracy
            assert epoch.loss == pytest.approx((epoch.clean_loss + epoch.robust_loss) / 2)

    def test_alphas_are_trained(self, digits_run: TrainingRun) -> None:
        last = digits_run.checkpoint.history[-1]
        weights = digits_run.weights()
        assert len(last.alpha) == 10
        for name, alpha in last.alpha.items():
            assert weights[f"{name}.weight.alpha"] == np.float32(alpha)
            assert alpha != 0.25

    def test_observer_hears_of_every_step_and_epoch(self, recipe: Recipe, few: Splits, tmp_path: Path) -> None:
        steps: list[tuple[int, int]] = []
        epochs: list[int] = []

        class Listener(Unwatched):
            def on_step(self, step: int, steps_in_all: int, loss: float, images_per_s: float) -> None:
                steps.append((step, steps_in_all))
                assert loss > 0
                assert images_per_s > 0

            def on_epoch(self, epoch: Epoch) -> None:
                epochs.append(epoch.epoch)
                assert len(open_run(tmp_path / "run").checkpoint.history) == epoch.epoch, "told before it was saved"

        train(override_recipe(recipe, ("train.epochs=2",)), few, tmp_path / "run", Listener())
        assert steps == [(step, 10) for step in range(1, 11)]
        assert epochs == [1, 2]

    @pytest.mark.parametrize(
        "option", ["attack={kind: pgd, epsilon: 0.15, steps: 1}", "sparsity.density=1", "condition.rule=paper"]
    )
    def test_other_recipes_train_and_resume(
        self, recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path, option: str
    ) -> None:
        other = override_recipe(recipe, (option, "train.epochs=2"))
        whole = train(other, few, tmp_path / "whole", silent)
        with pytest.raises(KeyboardInterrupt):
            train(other, few, tmp_path / "run", StopAt(epoch=1))
        assert_same_bits(train(other, few, tmp_path / "run", silent, resume=True), whole)


def test_weights_of_another_network_cannot_be_restored(recipe: Recipe, few: Splits, digits_run: TrainingRun) -> None:
    wider = training.trainer(recipe, few, "model.arguments.width=16")
    with pytest.raises(ArtifactError, match="another network") as caught:
        wider.restore(digits_run.weights(), digits_run.state())
    assert "\n" not in caught.value.what


def test_a_folder_of_something_else_is_not_trained_into(
    recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(OutputError, match=r"recipe\.yaml"):
        train(recipe, few, tmp_path, silent)
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
