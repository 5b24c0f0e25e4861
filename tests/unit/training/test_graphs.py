"""Training by CUDA graphs, with a stand-in that records what torch is asked for on a CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bench.calls import Calls
from fixtures.fake_graphs import Graph, fake_graphs
from fixtures.networks import IMAGES
from fixtures.training import DENSE, OAT, PUBLISHED, StopAfterAnEpoch, trainer
from torch import nn

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.errors import BackendError, RecipeError
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.training import loop
from floats_edge.training.distributed import Workers
from floats_edge.training.execution import Precision, torch_settings
from floats_edge.training.graphs import Graphs, stream_of_its_own
from floats_edge.training.loop import Observer, train
from floats_edge.training.losses import make_loss
from floats_edge.training.steps import FloatStep, make_step

__all__ = ["fake_graphs"]
GRAPHS = "train.cuda_graphs=true"
PLAIN = (*DENSE, "evaluate.lambdas=[0,1]")
CUT = ("sparsity.pattern=channel", "sparsity.density=0.5", "sparsity.multiple=2", "train.epochs=6")
RUNS = {
    "masks": ("train.epochs=3",),
    "PGD": (*DENSE, "attack={kind: pgd, epsilon: 0.15, steps: 3}"),
    "channels cut": CUT,
    "noise anew": (*DENSE, "condition.noise=resample"),
    "as published": (*DENSE, *PUBLISHED),
    "dropout": (*DENSE, "model={source: torchvision, name: mobilenet_v2, arguments: {width_mult: 0.1}}"),
    "pgd-at": (*PLAIN, "method=pgd-at"),
    "pgd-at, clean too": (*PLAIN, "method=pgd-at", "pgd_at.weight=0.5"),
    "trades": (*PLAIN, "method=trades"),
    "standard": (*PLAIN, "method=standard"),
}
Train = Callable[..., TrainingRun]


@pytest.fixture
def trained(
    digits_recipe: Recipe,
    few: Splits,
    silent: Observer,
    tmp_path: Path,
    fake_graphs: type[Graph],
    monkeypatch: pytest.MonkeyPatch,
) -> Train:
    """``trained(folder, *options)``: a run, on a CPU that has graphs."""
    monkeypatch.setattr(loop, "torch_settings", lambda train, device: torch_settings(train, torch.device("cuda")))

    def run(folder: str, *options: str, observer: Observer = silent, resume: bool = False) -> TrainingRun:
        recipe = override_recipe(digits_recipe, options)
        return train(recipe, few, tmp_path / folder, observer, resume=resume)

    return run


def bits(run: TrainingRun) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in run.weights().items()}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_recorded_training_has_the_bits_of_any_other(
    options: tuple[str, ...], trained: Train, fake_graphs: type[Graph]
) -> None:
    with Calls():  # who sees what torch is asked for, as the stand-in does, has gradients added up in another layout
        plain = trained("plain", *options)
    assert fake_graphs.replays == 0
    recorded = trained("recorded", *options, GRAPHS)
    steps = 5 * len(recorded.checkpoint.history)
    assert fake_graphs.replays >= 2 * steps, "a pass there and one back, in every step"
    assert bits(recorded) == bits(plain)
    assert [epoch.loss for epoch in recorded.checkpoint.history] == [epoch.loss for epoch in plain.checkpoint.history]


def test_so_has_one_in_mixed_precision(
    digits_recipe: Recipe, few: Splits, fake_graphs: type[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the other does not keep what it has cast: it would add up two passes' gradients in bfloat16."""
    plain, recorded = (trainer(digits_recipe, few, *DENSE, "train.amp=bf16", *graphs) for graphs in ((), (GRAPHS,)))
    plain.precision.keeps_casts = False
    for subject in (plain, recorded):
        generator = torch.Generator().manual_seed(0)
        with torch_settings(subject.recipe.train, torch.device("cuda")):
            for batch in subject.feed.batches(0):
                subject.update(*batch, generator)
    assert fake_graphs.replays
    ours, theirs = recorded.weights(), plain.weights()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_resuming_gives_the_bits_of_an_uninterrupted_training(trained: Train) -> None:
    options = (*RUNS["dropout"], GRAPHS)
    with pytest.raises(KeyboardInterrupt):
        trained("resumed", *options, observer=StopAfterAnEpoch())
    assert bits(trained("resumed", *options, resume=True)) == bits(trained("whole", *options))


def test_a_step_asks_for_a_few_graphs_in_place_of_all_their_layers(
    digits_recipe: Recipe, few: Splits, fake_graphs: type[Graph]
) -> None:
    subject = trainer(digits_recipe, few, *RUNS["PGD"], "model.name=resnet18", GRAPHS)
    generator, batches = torch.Generator().manual_seed(0), subject.feed.batches(0)
    with torch_settings(subject.recipe.train, torch.device("cuda")):
        subject.update(*next(batches), generator)
        fake_graphs.replays = 0
        with Calls() as calls:
            subject.step.losses(*next(batches), subject.attack, generator)
    assert fake_graphs.replays == 1 + 2 * 3 + 2, "the fold, each step of PGD there and back, both halves there"
    assert calls.count < 150


def test_several_workers_record_what_is_attacked_alone(
    digits_recipe: Recipe, few: Splits, fake_graphs: type[Graph]
) -> None:
    """What they exchange in every BatchNorm is not for a graph."""
    subject = trainer(digits_recipe, few, GRAPHS)
    assert isinstance(subject.step, FloatStep)
    loss = make_loss(subject.recipe.train, few.train.labels, len(few.labels), subject.device)
    step = make_step(subject.step.prepared, subject.recipe, Workers(size=2), loss)
    with torch_settings(subject.recipe.train, torch.device("cuda")):
        step.losses(*next(subject.feed.batches(0)), subject.attack, torch.Generator().manual_seed(0))
    assert fake_graphs.replays == 3, "the fold, and a single step there and back"


class Added(nn.Module):
    """Its parameters have one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.full((16,), value)) for value in (1.0, 2.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * (self.first + self.second)


def test_parameters_that_share_a_gradient_have_each_their_own(fake_graphs: type[Graph]) -> None:
    network = Added()
    with stream_of_its_own(torch.device("cuda")):
        graphs = Graphs(record=True)
        for name in ("lambda 0", "lambda 1"):
            graphs.network(name, network, learns=True)(IMAGES).sum().backward()
    wanted = 2 * IMAGES.mean((1, 2, 3)).sum().expand(16)
    for parameter in network.parameters():
        torch.testing.assert_close(parameter.grad, wanted)


class Peeking(nn.Module):
    """Its forward reads a number from the device."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * images.sum().item()


def test_what_cannot_be_recorded_is_refused(fake_graphs: type[Graph]) -> None:
    graphs = Graphs(record=True)
    for refused in (
        lambda: graphs.network("attack", Peeking(), learns=False)(IMAGES),
        lambda: graphs.run("fold", lambda: IMAGES.sum().item()),
    ):
        with (
            stream_of_its_own(torch.device("cuda")),
            pytest.raises(BackendError, match=r"cannot record the training .*: .*not permitted") as caught,
        ):
            refused()
        assert "train.cuda_graphs=false" in caught.value.fix


def test_a_graph_casts_its_weights_itself(digits_recipe: Recipe) -> None:
    recipe = override_recipe(digits_recipe, ("train.amp=bf16", GRAPHS))
    with Precision(recipe.train, torch.device("cpu")).autocast():
        assert not torch.is_autocast_cache_enabled()


def test_a_cpu_has_no_graphs(digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="needs an NVIDIA GPU, and this training is on device cpu") as caught:
        train(override_recipe(digits_recipe, (GRAPHS,)), few, tmp_path / "run", silent)
    assert "train.cuda_graphs=false" in caught.value.fix


@pytest.mark.parametrize(
    ("options", "why"), [(("train.compile=true",), "exclude each other"), (OAT, "OAT's do not fold")]
)
def test_recipes_that_cannot_be_recorded_are_refused(digits_recipe: Recipe, options: tuple[str, ...], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        override_recipe(digits_recipe, (*options, GRAPHS))
