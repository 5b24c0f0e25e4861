"""Channels cut in a real training run: when, how many, across a resume, and what recipes are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import training
from fixtures.networks import IMAGES, OneMoreHeadInTraining

from floats_edge.artifacts.checkpoint import Epoch, TrainingRun, open_run
from floats_edge.data import Splits
from floats_edge.errors import NetworkError, RecipeError
from floats_edge.method.condition import condition
from floats_edge.method.fold import VECTORS
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.torch import deployed_network, folded_network
from floats_edge.training.loop import Observer, Trainer, train
from floats_edge.training.optimizer import remember
from floats_edge.training.sparsity import make_masks
from floats_edge.training.stage import Unwatched
from floats_edge.training.statistics import image_spec

OPTIONS = (
    "sparsity.pattern=channel",
    "sparsity.density=0.5",
    "sparsity.multiple=2",
    "train.epochs=6",
    "data.crop=1",
)


class StopAfter(Unwatched):
    """An observer with a finger on Ctrl-C."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, epoch: Epoch) -> None:
        if epoch.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def recipe(digits_recipe: Recipe) -> Recipe:
    """With five steps an epoch, the cut comes after the sixth of thirty, the first of the second epoch."""
    return override_recipe(digits_recipe, OPTIONS)


@pytest.fixture(scope="module")
def run(recipe: Recipe, few: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    return train(recipe, few, tmp_path_factory.mktemp("channel") / "run", silent)


def test_dense_for_a_fifth_then_cut_once(run: TrainingRun, few: Splits, recipe: Recipe) -> None:
    trainer, densities = Trainer(recipe, few, image_spec(recipe, few), torch.device("cpu")), []

    class Watch:
        def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
            densities.append(trainer.density())

        def on_epoch(self, epoch: Epoch) -> None:
            pass

    for epoch in range(2):
        trainer.run_epoch(epoch, Watch())
    assert densities[:5] == [1.0] * 5
    assert len(set(densities[5:])) == 1
    assert 0.2 < densities[5] < 0.3
    history = run.checkpoint.history
    assert [epoch.density for epoch in history] == [1.0, *[densities[5]] * 5]
    assert not any(epoch.swapped for epoch in history)


def test_the_cut_is_remarked_once(run: TrainingRun) -> None:
    remarks = [(epoch.epoch, remark) for epoch in run.checkpoint.history for remark in epoch.remarks]
    cuts = [(epoch, remark) for epoch, remark in remarks if "channels" in remark]
    assert cuts == [(2, "channels cut after step 6: 56 of 112 in 6 groups are left")]


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_resume_is_bit_for_bit_before_in_and_after_the_cut(
    stop: int, recipe: Recipe, few: Splits, silent: Observer, run: TrainingRun, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, tmp_path / "run", StopAfter(stop))
    torch.manual_seed(99)
    resumed = train(recipe, few, tmp_path / "run", silent, resume=True)
    for one, other in ((resumed.weights(), run.weights()), (resumed.state(), run.state())):
        assert one.keys() == other.keys()
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    times = {"seconds", "images_per_s"}
    assert [epoch.model_dump(exclude=times) for epoch in resumed.checkpoint.history] == [
        epoch.model_dump(exclude=times) for epoch in run.checkpoint.history
    ]


class Hidden:
    """Masks of a network that stays as wide as it is: what another one no longer has is kept at zero.

    Args:
        wide: trainer of the network.
        narrow: trainer of the other one.
    """

    def __init__(self, wide: Trainer, narrow: Trainer) -> None:
        left = {name: np.ones(parameter.shape) for name, parameter in narrow.network.named_parameters()}
        kept = {name: torch.from_numpy(narrow.updater.kept.widened(name, ones)) for name, ones in left.items()}
        self.masks = [(parameter, kept[name]) for name, parameter in wide.network.named_parameters()]

    def mask_gradients(self) -> None:
        for parameter, mask in self.masks:
            parameter.grad.mul_(mask)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("condition.noise=resample", "attack.kind=pgd", "attack.steps=2"),
        ("train.optimizer=adamw", "train.lr=0.003"),
        ("model.name=wrn-16-8", "model.arguments={width: 4}", "condition.rule=paper"),
    ],
    ids=["sgd", "resampled", "adamw", "wide"],
)
def test_the_narrow_network_trains_as_the_masked_one_did(options: tuple[str, ...], recipe: Recipe, few: Splits) -> None:
    """Twenty steps of both from the cut on, in float64, where rounding decides no sign."""
    with training.float64_by_default():
        narrow, wide = (training.trainer(recipe, few, *options) for _ in range(2))
        for trainer in (narrow, wide):
            trainer.network.double()  # the noise, which is drawn as float32
        batches = [batch for epoch in range(6) for batch in narrow.feed.batches(epoch)]
        cut, generator = narrow.updater.last_dense_step, torch.Generator().manual_seed(0)
        for step, batch in enumerate(batches[:cut], 1):
            narrow.update(*batch, generator)
            narrow.updater.after_step(step, narrow.optimizer)
        wide.network.load_state_dict({name: torch.from_numpy(array) for name, array in narrow.weights().items()})
        remember(wide.optimizer, wide._parameters(), narrow.state())
        wide.updater = Hidden(wide, narrow)
        assert 2 * size(narrow) < size(wide)
        generators = [torch.Generator().manual_seed(1) for _ in range(2)]
        for batch in batches[cut : cut + 20]:
            pairs = zip((narrow, wide), generators, strict=True)
            one, other = (trainer.update(*batch, generator) for trainer, generator in pairs)
            assert (one.clean.item(), one.robust.item()) == pytest.approx(
                (other.clean.item(), other.robust.item()), rel=1e-9
            )
    weights = narrow.weights()
    for name, parameter in wide.network.named_parameters():
        np.testing.assert_allclose(weights[name], parameter.detach().numpy(), rtol=1e-7, atol=1e-7, err_msg=name)


def size(trainer: Trainer) -> int:
    return sum(parameter.numel() for parameter in trainer.network.parameters())


def test_a_run_keeps_its_channels_and_is_deployed_narrower(run: TrainingRun) -> None:
    layers, trained = deployed_network(run).layers, folded_network(run).layers
    left = [len(layers[f"blocks.{index}.{conv}"].theta) for index in range(3) for conv in ("conv1", "conv2")]
    assert left == [4, 4, 8, 8, 16, 16]
    for name, layer in layers.items():
        assert np.count_nonzero(trained[name].mask) == layer.mask.size
        assert not trained[name].theta[~trained[name].mask].any()
        removed = ~trained[name].mask.any(axis=tuple(range(1, layer.mask.ndim)))
        for vector in VECTORS:
            assert not getattr(trained[name], vector)[removed].any()


def test_a_run_that_was_not_yet_cut_is_deployed_as_it_is(recipe: Recipe, few: Splits, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, tmp_path / "run", StopAfter(1))
    layers = deployed_network(open_run(tmp_path / "run")).layers
    assert all(layer.drawn is None for layer in layers.values())


def test_groups_no_wider_than_the_multiple_are_kept_whole(recipe: Recipe, few: Splits) -> None:
    trainer = training.trainer(recipe, few, "sparsity.multiple=8")
    names = [group.name for group in trainer.updater.channels.groups]
    kept = dict(zip(names, trainer.updater.counts, strict=True))
    narrow = {"stem": 8, "blocks.0.conv1": 8}
    halved = {"blocks.1.conv1": 8, "blocks.1.conv2": 8, "blocks.2.conv1": 16, "blocks.2.conv2": 16}
    assert kept == narrow | halved


@pytest.mark.parametrize(
    ("options", "message", "fix"),
    [
        (["sparsity.multiple=32"], r"there are 6 groups of 8 to 32", "wider network"),
        (["sparsity.density=0.99"], "is every channel", "sparsity.density"),
    ],
)
def test_what_cannot_be_cut(recipe: Recipe, few: Splits, options: list[str], message: str, fix: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        training.trainer(recipe, few, *options)
    assert fix in caught.value.fix


def test_a_network_that_would_not_train_narrower_is_refused(recipe: Recipe) -> None:
    network = OneMoreHeadInTraining()
    condition(network, IMAGES)
    with pytest.raises(NetworkError, match="a narrower one does not train"):
        make_masks(network, IMAGES, recipe, 5, lambda: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sparsity.density=1"], "needs a density below 1"),
        (["sparsity.multiple=0"], "sparsity.multiple"),
    ],
)
def test_recipes_that_are_refused(recipe: Recipe, options: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        override_recipe(recipe, tuple(options))
