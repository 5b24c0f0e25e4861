"""Every method and sparsity trains on real digits, resumes bit for bit, and is what its paper says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.training import DENSE, OAT, PUBLISHED, StopAfterAnEpoch, trainer
from torch import nn

from floats_edge.artifacts.checkpoint import Epoch, TrainingRun
from floats_edge.baselines.spec import Oat
from floats_edge.data import Splits
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.errors import RecipeError
from floats_edge.method.condition import fold
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.fold import affine_in_lambda, weights_at
from floats_edge.method.semi_structured import is_eligible, is_two_of_four
from floats_edge.networks.spec import ImageSpec, NetworkSpec
from floats_edge.prepare import prepare
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe import Method, Recipe
from floats_edge.recipe_file import load_recipe, override_recipe
from floats_edge.runtime.lambda_weights import LambdaWeights
from floats_edge.runtime.torch import folded_network, run_predictor, trained_predictor
from floats_edge.training import steps
from floats_edge.training.loop import Observer, train
from floats_edge.training.sparsity import draw_masks

VARIANTS = {
    "pgd-at": (*DENSE, "method=pgd-at"),
    "pgd-at-half": (*DENSE, "method=pgd-at", "pgd_at.weight=0.5"),
    "trades": (*DENSE, "method=trades"),
    "trades-pgd": (*DENSE, "method=trades", "attack.kind=pgd", "attack.steps=3", "trades.beta=3"),
    "standard": (*DENSE, "method=standard"),
    "smoothed": ("train.epochs=2", "train.label_smoothing=0.1"),
    "oat": OAT,
    "oat-single-bare": (*OAT, "oat.encoding=none", "oat.batchnorm=single"),
    "2:4": (*DENSE, "sparsity.pattern='2:4'", "sparsity.update_every=0.4"),
    "channel": ("train.epochs=2", "sparsity.pattern=channel", "sparsity.density=0.5", "sparsity.multiple=2"),
    "importance": ("train.epochs=2", "sparsity.layer_densities=importance", "sparsity.update_every=0.4"),
    "resample": ("train.epochs=2", "condition.noise=resample"),
    "published": ("train.epochs=2", *PUBLISHED, "attack.kind=pgd", "attack.steps=2", "sparsity.update_every=0.4"),
    "alpha-0": (*DENSE, "condition.alpha=0"),
    "adamw": ("train.epochs=2", "train.optimizer=adamw", "train.lr=0.01", "sparsity.update_every=0.4"),
}


@pytest.fixture(scope="module")
def runs(
    digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainingRun]:
    folder = tmp_path_factory.mktemp("methods")
    return {
        name: train(override_recipe(digits_recipe, options), few, folder / name.replace(":", "-"), silent)
        for name, options in VARIANTS.items()
    }


def parameters(method: Method, **oat: Any) -> int:
    images = ImageSpec(preprocessing=Preprocessing().resolved((3, 32, 32)), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    model = NetworkSpec(name="resnet34", arguments={"width": 64})
    recipe = load_recipe("quickstart").model_copy(update={"method": method, "model": model, "oat": Oat(**oat)})
    return sum(parameter.numel() for parameter in prepare(recipe, images, 10).network.parameters())


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
        train(recipe, few, tmp_path / "run", StopAfterAnEpoch())
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
    run = train(
        override_recipe(digits_recipe, (*VARIANTS[name], f"train.epochs={2 if name == 'oat' else 1}")),
        digits,
        tmp_path / "run",
        silent,
    )
    assert run.checkpoint.history[-1].clean_accuracy > 60


class TestPlain:
    @pytest.mark.parametrize("name", ["pgd-at", "trades", "standard"])
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
        layers = folded_network(runs["pgd-at"]).layers
        clean = weights_at(layers, 0.0)
        for lam in (0.3, 1.0):
            other = weights_at(layers, lam)
            assert all(np.array_equal(clean[name], other[name]) for name in clean)
        _, slope = affine_in_lambda(layers)
        assert not any(array.any() for array in slope.values())

    def test_adversarial_training_attacks_the_whole_batch(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject, seen = trainer(digits_recipe, few, *VARIANTS["pgd-at"]), []

        def attack_seen(network: Any, images: torch.Tensor, *rest: Any, **config: Any) -> torch.Tensor:
            seen.append(len(images))
            return images

        monkeypatch.setattr(steps, "attack", attack_seen)
        images, labels = next(subject.feed.batches(0))
        losses = subject.step.losses(images, labels, subject.attack, torch.Generator())
        assert seen == [16]
        assert losses.clean is None
        assert losses.total is losses.robust

    def test_standard_training_attacks_nothing(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = trainer(digits_recipe, few, *VARIANTS["standard"])
        monkeypatch.delattr(steps, "attack")
        losses = subject.step.losses(*next(subject.feed.batches(0)), subject.attack, torch.Generator())
        assert losses.robust is None

    def test_unmeasured_losses_are_null(self, runs: dict[str, TrainingRun]) -> None:
        assert runs["pgd-at"].checkpoint.history[0].clean_loss is None
        assert runs["standard"].checkpoint.history[0].robust_loss is None

    @pytest.mark.parametrize("name", ["pgd-at", "trades"])
    def test_export(self, name: str, runs: dict[str, TrainingRun], tmp_path: Path) -> None:
        bundle = export(runs[name].path, tmp_path / "bundle", ExportRequest(lambdas=(0.5,)))
        assert bundle.manifest.density == 1


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
        weights = LambdaWeights(folded_network(runs["2:4"]).layers)
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
        narrow = {"stem": ConditionedWeight(nn.Parameter(torch.ones(6, 3, 3, 3)))}
        with pytest.raises(RecipeError, match="needs layers whose input channels divide by 4") as caught:
            draw_masks(narrow, trainer(digits_recipe, few, *VARIANTS["2:4"]).recipe.sparsity, seed=0)
        assert "wider network" in caught.value.fix
        narrow["head"] = ConditionedWeight(nn.Parameter(torch.ones(10, 8)))
        draw_masks(narrow, trainer(digits_recipe, few, *VARIANTS["2:4"]).recipe.sparsity, seed=0)
        assert [bool(weight.mask.all()) for weight in narrow.values()] == [True, False]

    def test_unquoted_in_yaml(self, digits_recipe: Recipe) -> None:
        """YAML 1.1 reads 2:4 as 124."""
        assert override_recipe(digits_recipe, (*DENSE, "sparsity.pattern=2:4")).sparsity.pattern == "2:4"


def test_importance_keeps_the_density_of_the_network_and_moves_that_of_layers(runs: dict[str, TrainingRun]) -> None:
    masks = [mask for name, mask in runs["importance"].weights().items() if name.endswith(".mask")]
    sizes = sum(mask.size for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == round(0.3 * sizes)
    densities = [mask.mean() for mask in masks]
    assert max(densities) - min(densities) > 0.02, "it starts uniform"


class TestCondition:
    def test_resampled_noise_is_shared_by_attack_and_update_and_new_in_every_step(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = trainer(digits_recipe, few, *VARIANTS["resample"])
        weight = subject.weights_by_layer["blocks.0.conv1"]
        frozen = weight.eta.clone()
        draws: list[torch.Tensor] = []

        def attack_seen(network: Any, images: torch.Tensor, *_: Any, **config: Any) -> torch.Tensor:
            now = weights_at(fold(subject.step.layers, "interpolate"), 1.0)
            assert torch.equal(network.get_parameter("blocks.0.conv1.weight"), now["blocks.0.conv1.weight"])
            draws.append(weight.eta.clone())
            return images

        monkeypatch.setattr(steps, "attack", attack_seen)
        generator = torch.Generator().manual_seed(0)
        for images, labels in list(subject.feed.batches(0))[:2]:
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
        layers = folded_network(runs["alpha-0"]).layers
        assert not any(layer.noise_slope.any() for layer in layers.values())


def test_folded_runs_are_still_predicted_folded(runs: dict[str, TrainingRun]) -> None:
    images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(
        trained_predictor(runs["pgd-at"]).predict(images), run_predictor(runs["pgd-at"]).predict(images)
    )
