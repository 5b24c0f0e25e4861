"""How long variants train, on real digits."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from floats_edge.artifacts.checkpoint import open_run
from floats_edge.artifacts.study import Footing
from floats_edge.baselines.oat import OatNetwork
from floats_edge.compare.footing import SEEN, check_kept, find_footing
from floats_edge.compare.plan import Plan, load_plan, with_epochs
from floats_edge.compare.run import compare
from floats_edge.compare.timing import TURNS, time_epochs
from floats_edge.data import Splits, load_data
from floats_edge.errors import ArtifactError
from floats_edge.recipe import Method, Recipe
from floats_edge.recipe_file import parse_recipe
from floats_edge.training.loop import Trainer
from floats_edge.training.stage import Unwatched, train
from floats_edge.training.statistics import image_spec
from floats_edge.training.steps import ResampledFloatStep

EPOCHS = 12
STEPS = 3


def recipe(method: str = "float", **changes: Any) -> Recipe:
    values = {
        "name": "a",
        "method": method,
        "data": {"train_images": 32 * STEPS, "crop": 1},
        "model": {"name": "resnet8", "arguments": {"width": 8}},
        "attack": {"kind": "n-fgsm", "epsilon": 0.1},
        "train": {"epochs": EPOCHS, "batch_size": 32},
        "evaluate": {"attack": {"kind": "pgd", "epsilon": 0.1, "steps": 1}, "lambdas": [0], "images": 8},
    }
    return parse_recipe({**values, **changes}, "test")


@pytest.fixture(scope="module")
def splits() -> Splits:
    torch.set_num_threads(1)
    return load_data(recipe().data, 0)


def epochs(footing: Footing) -> dict[str, int]:
    return {name: budget.epochs for name, budget in footing.budgets.items()}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *((method, {}) for method in get_args(Method)),
        ("pgd-at", {"pgd_at": {"weight": 0.5}}),
        ("float", {"condition": {"clean_images": "all"}}),
    ],
)
def test_the_images_that_a_network_sees_at_an_update_are_counted(
    method: Method, changes: dict[str, Any], splits: Splits
) -> None:
    subject = recipe(method, **changes)
    trainer = Trainer(subject, splits, image_spec(subject, splits), torch.device("cpu"))
    seen = 0

    def count(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal seen
        if module.training:
            seen += len(inputs[0])

    network = trainer.network
    (network.backbone if isinstance(network, OatNetwork) else network).register_forward_pre_hook(count)
    trainer.update(*next(iter(trainer.feed.batches(0))), torch.Generator().manual_seed(0))
    assert seen == SEEN[method](subject)


METHODS = {method: recipe(method) for method in get_args(Method)}


@pytest.mark.parametrize("reference", METHODS)
def test_equal_passes_are_as_many_images_to_whole_epochs(reference: str, splits: Splits) -> None:
    footing = find_footing(Plan(METHODS, reference), "passes", None, splits)
    assert footing.budgets[reference].epochs == EPOCHS
    total = EPOCHS * footing.budgets[reference].images
    for budget in footing.budgets.values():
        assert abs(budget.epochs * budget.images - total) <= budget.images / 2
        assert budget.timing is None
    assert footing.budgets["oat"].images == STEPS * (32 + 32 - 6), "of 6 lambdas, a sixth of a batch is of lambda 0"
    assert footing.budgets["float"].images == STEPS * 32


def test_equal_epochs_are_those_of_the_recipes(splits: Splits) -> None:
    assert set(epochs(find_footing(Plan(METHODS, "oat"), "epochs", None, splits)).values()) == {EPOCHS}


def test_one_network_sees_as_many_images_as_an_envelope_s_together(splits: Splits) -> None:
    variants = {name: METHODS[name] for name in ("float", "standard", "pgd-at")}
    plan = Plan(variants, "both", {"both": ("standard", "pgd-at")})
    footing = find_footing(plan, "passes", None, splits)
    assert epochs(footing) == {"float": 2 * EPOCHS, "standard": EPOCHS, "pgd-at": EPOCHS}


SLOW = {"kind": "pgd", "epsilon": 0.1, "steps": 30}


def test_equal_seconds_follow_from_timed_steps(splits: Splits) -> None:
    plan = Plan({"slow": recipe("pgd-at", attack=SLOW), "quick": recipe("standard")}, "slow")
    footing = find_footing(plan, "seconds", None, splits)
    timings = {name: budget.timing for name, budget in footing.budgets.items()}
    slow, quick = timings["slow"], timings["quick"]
    assert slow is not None
    assert quick is not None
    assert 0 < quick.low <= quick.median <= quick.high
    assert (quick.steps, quick.conditions["device"][:3]) == (TURNS, "cpu")
    assert "float32" not in quick.conditions, "what it is on a GPU says nothing of times on a CPU"
    assert slow.median > 3 * quick.median
    assert epochs(footing) == {"slow": EPOCHS, "quick": round(EPOCHS * slow.median / quick.median)}


def test_the_end_of_an_epoch_is_timed_too(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under resampled noise, a network is made ready for the frozen draw after every epoch."""
    settle = ResampledFloatStep.settle_frozen

    def slowly(self: ResampledFloatStep, *arguments: Any) -> None:
        time.sleep(2)
        settle(self, *arguments)

    monkeypatch.setattr(ResampledFloatStep, "settle_frozen", slowly)
    recipes = {"frozen": recipe(), "resampled": recipe(condition={"noise": "resample"})}
    timings = time_epochs(recipes, splits)
    assert timings["resampled"].low > 2 > timings["frozen"].low


class Watch(Unwatched):
    """Watches nothing, but keeps what it is told of the footing."""

    def on_footing(self, footing: Footing) -> None:
        self.footing = footing

    def training(self, name: str, epochs: int) -> Any:
        return nullcontext(self)

    def on_trial(self, trial: Any) -> None:
        pass


def test_a_study_keeps_its_epochs_and_what_is_added_is_timed(splits: Splits, tmp_path: Path) -> None:
    variants = {"slow": recipe("pgd-at", attack=SLOW), "quick": recipe("standard")}
    variants = {name: with_epochs(variant, 2) for name, variant in variants.items()}
    study = compare(Plan(variants, "quick"), 1, tmp_path / "study", Watch(), equal="seconds")
    again = Watch()
    variants["float"] = with_epochs(recipe(), 2)
    longer = compare(Plan(variants, "quick"), 1, tmp_path / "study", again, equal="seconds")
    assert again.footing == longer.footing
    kept = {name: longer.footing.budgets[name] for name in ("slow", "quick")}
    assert kept == study.footing.budgets
    assert longer.footing.budgets["float"].timing is not None
    assert [trial.model_dump() for trial in longer.trials[:2]] == [trial.model_dump() for trial in study.trials]


def test_timing_leaves_no_trace_in_what_is_trained(splits: Splits, tmp_path: Path) -> None:
    plan = Plan({"float": with_epochs(recipe(), 1)}, "float")
    (trial,) = compare(plan, 1, tmp_path / "study", Watch(), equal="seconds").trials
    alone = train(plan.variants["float"], tmp_path / "alone")
    assert trial.weights_sha256 == alone.weights_sha256


def test_variants_train_the_epochs_that_were_found(tmp_path: Path) -> None:
    variants = {name: with_epochs(METHODS[name], 1) for name in ("float", "standard", "pgd-at")}
    plan = Plan(variants, "both", {"both": ("standard", "pgd-at")})
    study = compare(plan, 1, tmp_path / "study", Watch(), equal="passes")
    assert {trial.variant: trial.steps for trial in study.trials} == {
        "float": 2 * STEPS,
        "standard": STEPS,
        "pgd-at": STEPS,
    }
    recipe = open_run(tmp_path / "study" / "float" / "seed-0").checkpoint.recipe
    assert recipe.train.epochs == 2


def test_a_study_stopped_in_its_first_training_keeps_its_epochs(tmp_path: Path) -> None:
    class Stop(Watch):
        def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
            raise KeyboardInterrupt

    plan = Plan({name: with_epochs(METHODS[name], 1) for name in ("float", "standard")}, "float")
    first, second = Stop(), Watch()
    with pytest.raises(KeyboardInterrupt):
        compare(plan, 1, tmp_path / "study", first, equal="seconds")
    compare(plan, 1, tmp_path / "study", second, equal="seconds")
    assert second.footing == first.footing


BOTH = {"a": METHODS["float"], "b": METHODS["standard"]}


@pytest.mark.parametrize(
    ("equal", "plan", "message"),
    [
        ("passes", Plan(BOTH, "a"), "was begun with --equal seconds"),
        ("seconds", Plan(BOTH, "b"), "as long as a, not b"),
        ("seconds", Plan({**BOTH, "b": recipe("standard", seed=1)}, "a"), "another variant b: seed differ"),
        ("seconds", Plan({**BOTH, "b": with_epochs(BOTH["b"], 3)}, "a"), r"another variant b: train\.epochs differ"),
    ],
)
def test_another_footing_is_refused(splits: Splits, tmp_path: Path, equal: Any, plan: Plan, message: str) -> None:
    kept = find_footing(Plan(BOTH, "a"), "passes", None, splits)
    kept = kept.model_copy(update={"equal": "seconds"})
    with pytest.raises(ArtifactError, match=message) as caught:
        check_kept(kept, plan, equal, tmp_path)
    assert "--out" in caught.value.fix


def test_how_it_is_evaluated_may_change(splits: Splits, tmp_path: Path) -> None:
    plan = load_plan(["compare-small"])
    kept = find_footing(plan, "epochs", None, splits)
    changed = load_plan(["compare-small"], ("evaluate.images=7", "reference=float"))
    check_kept(kept, changed, "epochs", tmp_path)
