"""Every method and sparsity trains on real digits, resumes bit for bit, and is what its paper says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from floats_edge.artifacts.checkpoint import Epoch, TrainingRun
from floats_edge.data import Splits
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.errors import ArtifactError, LambdaError, RecipeError
from floats_edge.evaluate.robustness import evaluate
from floats_edge.method.fold import affine_in_lambda, fold_network, weights_at
from floats_edge.method.semi_structured import is_eligible, is_two_of_four
from floats_edge.models.build import build_method
from floats_edge.models.spec import Method, ModelSpec, Oat
from floats_edge.recipe import Recipe, override_recipe
from floats_edge.runtime.lambda_weights import LambdaWeights
from floats_edge.runtime.torch import run_predictor, trained_layers, trained_predictor
from floats_edge.train import check, steps
from floats_edge.train.check import Check
from floats_edge.train.check import check as run_check
from floats_edge.train.loop import Observer, Trainer, train

DENSE = ("sparsity.density=1", "train.epochs=2")
OAT = (*DENSE, "method=oat", "evaluate.lambdas=[0,0.2,1]")
VARIANTS = {
    "pgd-at": (*DENSE, "method=pgd-at"),
    "standard": (*DENSE, "method=standard"),
    "oat": OAT,
    "oat-single-bare": (*OAT, "oat.encoding=none", "oat.batchnorm=single"),
    "2:4": (*DENSE, "sparsity.pattern='2:4'", "sparsity.update_every=0.4"),
    "channel": ("train.epochs=2", "sparsity.pattern=channel", "sparsity.density=0.5", "sparsity.multiple=2"),
    "importance": ("train.epochs=2", "sparsity.layer_densities=importance", "sparsity.update_every=0.4"),
    "resample": ("train.epochs=2", "condition.noise=resample"),
    "alpha-0": (*DENSE, "condition.alpha=0"),
}


class Stop:
    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        pass

    def on_epoch(self, epoch: Epoch) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def few(digits: Splits) -> Splits:
    """Five steps an epoch."""
    return replace(digits, train=digits.train.first(80), validation=digits.validation.first(40))


@pytest.fixture(scope="module")
def runs(
    digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainingRun]:
    folder = tmp_path_factory.mktemp("methods")
    return {
        name: train(override_recipe(digits_recipe, options), few, folder / name.replace(":", "-"), silent)
        for name, options in VARIANTS.items()
    }


def trainer(recipe: Recipe, few: Splits, *options: str) -> Trainer:
    return Trainer(override_recipe(recipe, options), few, torch.device("cpu"))


def parameters(method: Method, **oat: Any) -> int:
    spec = ModelSpec(
        arch="resnet34",
        width=64,
        stem_stride=1,
        image_shape=(3, 32, 32),
        classes=10,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )
    return sum(parameter.numel() for parameter in build_method(spec, method, Oat(**oat), 0).parameters())


def test_parameters_of_resnet34() -> None:
    """He et al.'s network; FLOAT 1.0008 times as large; OAT's repository states 31.4040 M for its smallest."""
    plain, ours = parameters("standard"), parameters("float")
    bare, published = parameters("oat", encoding="none", batchnorm="single"), parameters("oat")
    assert (plain, ours, bare, published) == (21_282_122, 21_299_183, 31_403_978, 33_355_466)
    assert parameters("pgd-at") == plain
    assert ours / plain < 1.001
    assert round(bare / plain, 2) == 1.48


@pytest.mark.parametrize("name", VARIANTS)
def test_resume_is_bit_for_bit(
    name: str, digits_recipe: Recipe, few: Splits, silent: Observer, runs: dict[str, TrainingRun], tmp_path: Path
) -> None:
    recipe = override_recipe(digits_recipe, VARIANTS[name])
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, tmp_path / "run", Stop())
    torch.manual_seed(4321)
    resumed, whole = train(recipe, few, tmp_path / "run", silent, resume=True), runs[name]
    for one, other in ((resumed.weights(), whole.weights()), (resumed.state(), whole.state())):
        assert one.keys() == other.keys()
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)
    times = {"seconds", "images_per_s"}
    assert [epoch.model_dump(exclude=times) for epoch in resumed.checkpoint.history] == [
        epoch.model_dump(exclude=times) for epoch in whole.checkpoint.history
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_it_learns(name: str, digits_recipe: Recipe, digits: Splits, silent: Observer, tmp_path: Path) -> None:
    run = train(override_recipe(digits_recipe, (*VARIANTS[name], "train.epochs=1")), digits, tmp_path / "run", silent)
    assert run.checkpoint.history[-1].clean_accuracy > 60


class TestPlain:
    @pytest.mark.parametrize("name", ["pgd-at", "standard"])
    def test_folded_network_computes_the_same(
        self, name: str, digits_recipe: Recipe, few: Splits, runs: dict[str, TrainingRun]
    ) -> None:
        subject = trainer(digits_recipe, few, *VARIANTS[name])
        subject.restore(runs[name].weights(), runs[name].state())
        images = torch.from_numpy(few.validation.as_float())
        subject.network.eval()
        with torch.no_grad():
            torch.testing.assert_close(subject.step.at(0.3)(images), subject.network(images), atol=1e-4, rtol=1e-4)

    def test_every_lambda_gives_the_same_weights(self, runs: dict[str, TrainingRun]) -> None:
        layers = trained_layers(runs["pgd-at"])
        clean = weights_at(layers, 0.0, "interpolate")
        for lam in (0.3, 1.0):
            other = weights_at(layers, lam, "interpolate")
            assert all(np.array_equal(clean[name], other[name]) for name in clean)
        _, slope = affine_in_lambda(layers, "paper")
        assert not any(array.any() for array in slope.values())

    def test_adversarial_training_attacks_the_whole_batch(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject, seen = trainer(digits_recipe, few, *VARIANTS["pgd-at"]), []

        def attack_seen(network: Any, images: torch.Tensor, *rest: Any, **config: Any) -> torch.Tensor:
            seen.append(len(images))
            return images

        monkeypatch.setattr(steps, "attack", attack_seen)
        images, labels = next(subject._batches(0))
        losses = subject.step.losses(images, labels, subject.attack, torch.Generator())
        assert seen == [16]
        assert losses.clean is None
        assert losses.total is losses.robust

    def test_standard_training_attacks_nothing(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = trainer(digits_recipe, few, *VARIANTS["standard"])
        monkeypatch.delattr(steps, "attack")
        losses = subject.step.losses(*next(subject._batches(0)), subject.attack, torch.Generator())
        assert losses.robust is None

    def test_unmeasured_losses_are_null(self, runs: dict[str, TrainingRun]) -> None:
        assert runs["pgd-at"].checkpoint.history[0].clean_loss is None
        assert runs["standard"].checkpoint.history[0].robust_loss is None

    def test_export(self, runs: dict[str, TrainingRun], tmp_path: Path) -> None:
        bundle = export(runs["pgd-at"].path, tmp_path / "bundle", ExportRequest(lambdas=(0.5,)))
        assert bundle.manifest.density == 1


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
        images, labels = next(subject._batches(0))
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
        network = trained_predictor(runs["oat"])
        assert network.lambdas == (0.0, 0.1, 0.2, 0.3, 0.4, 1.0)
        with pytest.raises(LambdaError, match=r"knows no 0\.5") as caught:
            network.set_lambda(0.5)
        assert "oat.encoding=none" in caught.value.fix
        images = few.validation.as_float()
        subject = trainer(digits_recipe, few, *OAT)
        subject.restore(runs["oat"].weights(), runs["oat"].state())
        for lam in (0.2, 1.0, 0.0):
            network.set_lambda(lam)
            np.testing.assert_allclose(
                network.predict(images), subject.step.at(lam)(torch.from_numpy(images)).numpy(), atol=1e-5
            )
        results = evaluate(network, network, few.validation, (0.0, 1.0), digits_recipe.evaluate.attack, 0)
        assert [result.lam for result in results] == [0.0, 1.0]

    def test_bare_lambda_serves_any(self, runs: dict[str, TrainingRun]) -> None:
        network = trained_predictor(runs["oat-single-bare"])
        images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
        logits = []
        for lam in (0.15, 0.9):
            network.set_lambda(lam)
            logits.append(network.predict(images))
        assert np.abs(logits[0] - logits[1]).max() > 1e-4

    def test_encoding_is_that_of_the_run(self, runs: dict[str, TrainingRun]) -> None:
        assert runs["oat"].weights()["codes"].shape == (6, 128)

    def test_export_is_refused(self, runs: dict[str, TrainingRun], tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="baseline that cannot be folded") as caught:
            export(runs["oat"].path, tmp_path / "bundle", ExportRequest())
        assert "floats-edge evaluate" in caught.value.fix
        assert not (tmp_path / "bundle").exists()


class TestTwoOfFour:
    def test_pattern_holds_after_every_step(self, digits_recipe: Recipe, few: Splits) -> None:
        subject = trainer(digits_recipe, few, *VARIANTS["2:4"], "train.epochs=4")
        masks: list[torch.Tensor] = []

        class Inspector:
            def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
                for name, weight in subject.weights_by_layer.items():
                    if name == "stem":
                        assert weight.mask.all()
                        continue
                    assert int(weight.mask.sum()) * 2 == weight.mask.numel()
                    momentum = subject.optimizer.state[weight.theta]["momentum_buffer"]
                    for tensor in (weight.mask, weight.theta, momentum, weight(0.6), weight(1.0)):
                        assert is_two_of_four(tensor), name
                masks.append(subject.weights_by_layer["blocks.0.conv1"].mask.clone())

            def on_epoch(self, epoch: Epoch) -> None:
                pass

        swapped = [subject.run_epoch(epoch, Inspector()).swapped for epoch in range(4)]
        assert swapped[0] > 0
        assert swapped[3] == 0, "masks rest in the last quarter"
        assert not torch.equal(masks[0], masks[-1])

    def test_pattern_holds_in_checkpoint_and_in_exported_weights(
        self, runs: dict[str, TrainingRun], tmp_path: Path
    ) -> None:
        for name, tensor in runs["2:4"].weights().items():
            if name.endswith(".theta") and is_eligible(tensor.shape):
                assert is_two_of_four(torch.from_numpy(tensor)), name
        weights = LambdaWeights(trained_layers(runs["2:4"]), "interpolate")
        for lam in (0.0, 0.37, 1.0):
            eligible = {
                name: torch.from_numpy(array)
                for name, array in weights.at(lam).items()
                if name.endswith(".weight") and is_eligible(array.shape)
            }
            assert len(eligible) == 9
            assert all(map(is_two_of_four, eligible.values()))
        manifest = export(runs["2:4"].path, tmp_path / "bundle", ExportRequest()).manifest
        assert {layer.name: 2 * layer.nonzeros == np.prod(layer.shape) for layer in manifest.layers} == {
            layer.name: layer.name != "stem" for layer in manifest.layers
        }

    def test_dense_layers_are_named_once(self, runs: dict[str, TrainingRun]) -> None:
        first, second = runs["2:4"].checkpoint.history
        assert [remark for remark in first.remarks if remark.endswith(": stem")]
        assert not [remark for remark in second.remarks if "stem" in remark]

    def test_too_few_channels(self, digits_recipe: Recipe, few: Splits) -> None:
        with pytest.raises(RecipeError, match=r"needs 4 input channels; blocks\.0\.conv1, .* has fewer") as caught:
            trainer(digits_recipe, few, *VARIANTS["2:4"], "model.width=2")
        assert "model.width" in caught.value.fix

    @pytest.mark.parametrize("option", ["sparsity.density=0.5", "sparsity.layer_densities=uniform"])
    def test_density_is_refused(self, digits_recipe: Recipe, option: str) -> None:
        with pytest.raises(RecipeError, match="2:4 sets the density itself"):
            override_recipe(digits_recipe, (*VARIANTS["2:4"], option))

    def test_unquoted_in_yaml(self, digits_recipe: Recipe) -> None:
        """YAML 1.1 reads 2:4 as 124."""
        assert override_recipe(digits_recipe, (*DENSE, "sparsity.pattern=2:4")).sparsity.pattern == "2:4"


def test_importance_keeps_the_density_of_the_network_and_moves_that_of_layers(runs: dict[str, TrainingRun]) -> None:
    masks = [mask for name, mask in runs["importance"].weights().items() if name.endswith(".mask")]
    sizes = sum(mask.size for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == round(0.3 * sizes)
    densities = [mask.mean() for mask in masks]
    assert max(densities) - min(densities) > 0.02, "it starts uniform"


def test_a_baseline_is_not_sparse(digits_recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="dense baseline"):
        override_recipe(digits_recipe, ("method=pgd-at",))


class TestCondition:
    def test_resampled_noise_is_shared_by_attack_and_update_and_new_in_every_step(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = trainer(digits_recipe, few, *VARIANTS["resample"])
        weight = subject.weights_by_layer["blocks.0.conv1"]
        frozen = weight.eta.clone()
        draws: list[torch.Tensor] = []

        def attack_seen(network: Any, images: torch.Tensor, *_: Any, **config: Any) -> torch.Tensor:
            now = weights_at(fold_network(subject.network), 1.0, "interpolate")
            assert torch.equal(network.get_parameter("blocks.0.conv1.weight"), now["blocks.0.conv1.weight"])
            draws.append(weight.eta.clone())
            return images

        monkeypatch.setattr(steps, "attack", attack_seen)
        generator = torch.Generator().manual_seed(0)
        for images, labels in list(subject._batches(0))[:2]:
            subject.step.losses(images, labels, subject.attack, generator)
            assert torch.equal(weight.eta, draws[-1]), "the update sees the draw of the attack"
        assert not torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], frozen)

    def test_a_resampled_network_is_saved_ready_for_the_frozen_draw(
        self, digits_recipe: Recipe, few: Splits, silent: Observer
    ) -> None:
        subject = trainer(digits_recipe, few, *VARIANTS["resample"])
        frozen = subject.weights_by_layer["head"].eta.clone()
        seen: list[torch.Tensor] = []
        handle = subject.network.get_submodule("stem.norm.adv").register_forward_hook(
            lambda module, args, output: seen.append(args[0].detach())
        )
        subject.run_epoch(0, silent)
        handle.remove()
        assert torch.equal(subject.weights_by_layer["head"].eta, frozen)
        norm = subject.network.get_submodule("stem.norm.adv")
        assert isinstance(norm, torch.nn.BatchNorm2d)
        settled = torch.stack([batch.mean((0, 2, 3)) for batch in seen[-5:]]).mean(0)
        torch.testing.assert_close(norm.running_mean, settled, atol=1e-5, rtol=1e-4)
        assert norm.momentum == 0.1

    def test_alpha_can_be_fixed(self, runs: dict[str, TrainingRun]) -> None:
        last = runs["alpha-0"].checkpoint.history[-1]
        assert set(last.alpha.values()) == {0.0}
        assert not last.remarks, "nothing has collapsed that was never to live"
        assert not any("alpha" in name for name in runs["alpha-0"].state())
        layers = trained_layers(runs["alpha-0"])
        assert not any(layer.noise_scale for layer in layers.values())

    def test_collapsed_noise_is_remarked(self) -> None:
        assert check.collapsed_remark({"a": 0.01, "b": -0.049}) is not None
        assert check.collapsed_remark({"a": 0.01, "b": -0.06}) is None
        assert check.collapsed_remark({}) is None

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
        result = run_check(Masked(), images, labels, config, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        assert (result.clean, result.robust, result.single_step) == (100.0, 0.0, 100.0)
        assert result.overfitted

    def test_pgd_training_is_not_checked_by_a_second_attack(
        self, digits_recipe: Recipe, few: Splits, silent: Observer
    ) -> None:
        epoch = trainer(digits_recipe, few, "attack.kind=pgd").run_epoch(0, silent)
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
            train(recipe, few, tmp_path / "run", Stop())
        run = train(recipe, few, tmp_path / "run", silent, resume=True)
        assert {config["kind"] for config in seen} == kinds
        assert {config["epsilon"] for config in seen} == {0.15}
        assert {config["steps"] for config in seen if config["kind"] == "pgd"} <= {7}
        (remark,) = [text for text in run.checkpoint.history[0].remarks if "catastrophic" in text]
        assert "60.0 % under the attack of training, 1.0 % under PGD" in remark


def test_folded_runs_are_still_predicted_folded(runs: dict[str, TrainingRun]) -> None:
    images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(
        trained_predictor(runs["pgd-at"]).predict(images), run_predictor(runs["pgd-at"]).predict(images)
    )
