"""Training that starts from pretrained weights: what is loaded, kept, frozen and settled."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.training import DENSE, OAT, StopAfterAnEpoch, trainer
from safetensors.torch import save_file
from torch import nn

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.errors import NetworkError, RecipeError
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.networks.build import build
from floats_edge.recipe import Recipe, Sparsity
from floats_edge.recipe_file import override_recipe
from floats_edge.training.loop import Observer, Trainer, train
from floats_edge.training.sparsity import keep_largest
from floats_edge.training.stage import Unwatched
from floats_edge.training.statistics import image_spec

MOBILENET = "model={source: torchvision, name: mobilenet_v3_small}"


@pytest.fixture(scope="module")
def weights(digits_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the recipe's network for 7 classes, with statistics that no network begins with."""
    torch.manual_seed(5)
    network = build(digits_recipe.model, classes=7, channels=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(
    digits_recipe: Recipe, few: Splits, silent: Observer, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    recipe = override_recipe(digits_recipe, (*DENSE, f"model.weights={weights}", "train.epochs=1"))
    return train(recipe, few, tmp_path_factory.mktemp("finetuned") / "run", silent)


def test_what_was_loaded_is_said_once(run: TrainingRun) -> None:
    [remark] = [remark for remark in run.checkpoint.history[0].remarks if "pretrained.safetensors" in remark]
    assert "left random: head.weight: [7, 32] in the file, [10, 32] in the network" in remark
    assert remark.count("head.weight") == 1


def test_what_was_loaded_is_told_before_the_first_step(
    digits_recipe: Recipe, few: Splits, weights: Path, tmp_path: Path
) -> None:
    class Listener(Unwatched):
        def on_start(self, remarks: tuple[str, ...]) -> None:
            told.append(remarks)

        def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
            told.append(())

    recipe = override_recipe(digits_recipe, (*DENSE, f"model.weights={weights}"))
    told: list[tuple[str, ...]] = []
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, tmp_path, StopAfterAnEpoch())
    train(recipe, few, tmp_path, Listener(), resume=True)
    assert not any(told), "no news to a run that goes on"
    told.clear()
    train(recipe, few, tmp_path / "anew", Listener())
    (images, loaded), *steps = told
    assert not any(steps)
    there = len(few.validation)
    assert images.startswith(f"accuracy after each epoch is of {there} of {there} validation images")
    assert "left random: head.weight" in loaded


def test_a_run_needs_the_file_no_more(run: TrainingRun, few: Splits, silent: Observer, weights: Path) -> None:
    gone = override_recipe(run.checkpoint.recipe, ("evaluate.images=7", f"model.weights={weights}"))
    moved = weights.rename(weights.with_suffix(".moved"))
    try:
        resumed = train(gone, few, run.path, silent, resume=True)
    finally:
        moved.rename(weights)
    assert resumed.weights_sha256 == run.weights_sha256


def test_both_ends_begin_at_the_pretrained_statistics_and_the_adversarial_one_is_settled(
    digits_recipe: Recipe, few: Splits, weights: Path
) -> None:
    subject = trainer(digits_recipe, few, *DENSE, f"model.weights={weights}")
    norm = subject.network.get_submodule("stem.norm")
    before = norm.clean.running_mean.clone()
    assert torch.equal(norm.adv.running_mean, before)
    assert norm.adv.weight is not norm.clean.weight
    seen: list[torch.Tensor] = []
    norm.adv.register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    subject.settle()
    assert torch.equal(norm.clean.running_mean, before)
    wanted = torch.stack([batch.mean((0, 2, 3)) for batch in seen]).mean(0)
    torch.testing.assert_close(norm.adv.running_mean, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pattern", ["irregular", "2:4"])
def test_a_pretrained_network_keeps_its_largest_weights(pattern: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = ConditionedWeight(nn.Parameter(torch.randn(8, 8, 3, 3, generator=generator)))
    theta = weight.theta.detach().clone()
    density = {} if pattern == "2:4" else {"density": 0.25}
    keep_largest({"conv": weight}, Sparsity.model_validate({"pattern": pattern, **density}))
    if pattern == "irregular":
        assert weight.mask.sum() == round(0.25 * theta.numel())
        assert theta[weight.mask].abs().min() >= theta[~weight.mask].abs().max()
    else:
        size, mask = (tensor.view(8, 2, 4, 9).movedim(2, -1) for tensor in (theta.abs(), weight.mask))
        assert (mask.sum(-1) == 2).all()
        assert (size[mask].view(-1, 2).amin(1) >= size[~mask].view(-1, 2).amax(1)).all()


def test_the_masks_of_a_pretrained_network_are_not_drawn(digits_recipe: Recipe, few: Splits, weights: Path) -> None:
    subject = trainer(digits_recipe, few, "sparsity.layer_densities=uniform", f"model.weights={weights}")
    whole = trainer(digits_recipe, few, *DENSE, f"model.weights={weights}")
    weight, before = subject.weights_by_layer["blocks.1.conv1"], whole.weights_by_layer["blocks.1.conv1"].theta
    assert before[weight.mask].abs().min() >= before[~weight.mask].abs().max()


class TestFrozen:
    @pytest.mark.parametrize(
        "method", [DENSE, (), (*DENSE, "method=standard"), OAT], ids=["float", "sparse", "plain", "oat"]
    )
    def test_what_is_frozen_stays_and_the_rest_learns(
        self, digits_recipe: Recipe, few: Splits, silent: Observer, method: tuple[str, ...]
    ) -> None:
        subject = trainer(digits_recipe, few, *method, "train.frozen=[stem, stem_norm, blocks.0]")
        before = {name: tensor.copy() for name, tensor in subject.weights().items()}
        subject.run_epoch(0, silent)
        after = subject.weights()
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        inside = "backbone." if method == OAT else ""
        assert not [name for name in changed if name.startswith((f"{inside}stem", f"{inside}blocks.0."))]
        assert [name for name in changed if name.startswith(f"{inside}blocks.1.")]
        if not method:
            assert subject.weights_by_layer["blocks.0.conv1"].mask.all()
            assert not subject.weights_by_layer["blocks.1.conv1"].mask.all()

    @pytest.mark.parametrize(
        ("option", "said", "fix"),
        [
            ("train.frozen=[stemm]", "no module stemm to freeze", "stem"),
            ("train.frozen=[stem, stem_norm, blocks, head]", "every module is frozen", "fewer"),
        ],
    )
    def test_what_cannot_be(self, digits_recipe: Recipe, few: Splits, option: str, said: str, fix: str) -> None:
        with pytest.raises(NetworkError, match=said) as caught:
            trainer(digits_recipe, few, *DENSE, option)
        assert fix in caught.value.fix

    def test_not_with_channels(self, digits_recipe: Recipe, few: Splits) -> None:
        with pytest.raises(RecipeError, match="whole network"):
            trainer(digits_recipe, few, "sparsity={pattern: channel, density: 0.5}", "train.frozen=[stem]")


class TestStatistics:
    def test_of_published_weights(self, digits_recipe: Recipe, few: Splits) -> None:
        colour = Splits(few.train, few.validation, few.test, few.labels)
        object.__setattr__(colour, "train", _repeated(few))
        recipe = override_recipe(digits_recipe, (*DENSE, MOBILENET))
        pretrained = override_recipe(recipe, ("data.statistics=pretrained", "model.weights=mobilenet_v2.pth"))
        subject = Trainer(recipe, colour, image_spec(pretrained, colour), torch.device("cpu"))
        assert subject.kind.mean == (0.485, 0.456, 0.406)
        assert subject.network.image_std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])

    @pytest.mark.parametrize("model", ["model.name=resnet8", MOBILENET])
    def test_that_are_not_known_or_of_other_images(self, digits_recipe: Recipe, few: Splits, model: str) -> None:
        with pytest.raises(RecipeError, match="expect no known statistics of 1 channels") as told:
            trainer(digits_recipe, few, *DENSE, model, "data.statistics=pretrained", "model.weights=file.pth")
        assert told.value.fix == "set data.statistics=images"

    def test_of_weights_that_nobody_named(self, digits_recipe: Recipe, few: Splits) -> None:
        with pytest.raises(RecipeError, match="no pretrained weights are named"):
            trainer(digits_recipe, few, *DENSE, MOBILENET, "data.statistics=pretrained")


def _repeated(few: Splits) -> object:
    """The training images in three equal channels, 32 pixels high."""
    from floats_edge.images import Images

    pixels = few.train.pixels.repeat(3, axis=1).repeat(4, axis=2).repeat(4, axis=3)
    return Images(few.train.labels, pixels.__getitem__)
