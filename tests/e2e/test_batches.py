"""Nothing sends more images through a network at once than a step of training does, so nothing needs more memory."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch.nn.modules.module import register_module_forward_pre_hook

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.study import Footing, Trial
from floats_edge.cli.main import cli
from floats_edge.compare.plan import Plan
from floats_edge.compare.run import compare
from floats_edge.data import Splits
from floats_edge.evaluation.batch import evaluation_batch
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.base import Predictor
from floats_edge.training.distributed import Workers
from floats_edge.training.loop import Observer, Trainer, train
from floats_edge.training.statistics import image_spec

BATCH = 8
SMALL = (f"train.batch_size={BATCH}", "train.epochs=1", "evaluate.lambdas=[0,1]", "evaluate.attack.steps=2")


@pytest.fixture(scope="module")
def recipe(digits_recipe: Recipe) -> Recipe:
    return override_recipe(digits_recipe, SMALL)


@pytest.fixture(scope="module")
def run(recipe: Recipe, few: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    return train(recipe, few, tmp_path_factory.mktemp("batches") / "run", silent)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """How many images were sent through a network at once, by PyTorch and by ONNX Runtime."""
    sizes: set[int] = set()

    def note(images: Any) -> None:
        if type(images) in (torch.Tensor, np.ndarray) and images.ndim == 4:  # none that only traces a network
            sizes.add(len(images))

    predict, run = Predictor.predict, onnxruntime.InferenceSession.run

    def predict_noted(self: Predictor, images: Any) -> Any:
        note(images)
        return predict(self, images)

    def run_noted(self: Any, names: Any, feed: dict[str, Any], options: Any = None) -> Any:
        note(next(iter(feed.values())))
        return run(self, names, feed, options)

    monkeypatch.setattr(Predictor, "predict", predict_noted)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run_noted)
    hook = register_module_forward_pre_hook(lambda module, args: note(args[0]) if args else None)
    yield sizes
    hook.remove()


def floats_edge(*words: str | Path) -> None:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "options", [(), ("sparsity={}", "condition.noise=resample"), ("attack.kind=pgd", "attack.steps=1")], ids=str
)
def test_training_and_the_check_after_it(
    options: tuple[str, ...], recipe: Recipe, few: Splits, seen: set[int], silent: Observer, tmp_path: Path
) -> None:
    train(override_recipe(recipe, options), few, tmp_path / "run", silent)
    assert max(seen) == BATCH


def test_a_worker_checks_no_more_at_once_than_its_share(recipe: Recipe, few: Splits) -> None:
    worker = Trainer(recipe, few, image_spec(recipe, few), torch.device("cpu"), Workers(1, 2))
    assert {len(images) for images, _ in worker._held_out()} == {BATCH // 2}


@pytest.mark.parametrize("options", [(), ("--noise", "resample", "--eot", "2"), ("--split", "validation")], ids=str)
def test_evaluate(options: tuple[str, ...], run: TrainingRun, seen: set[int], tmp_path: Path) -> None:
    floats_edge("evaluate", run.path, "--images", "20", "--device", "cpu", *options, "-o", tmp_path / "e.json")
    assert max(seen) == BATCH


def test_export_and_verify(run: TrainingRun, seen: set[int], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    words = ("--precision", "int8", "--sensitivity", "--lambda", "1", "--allow-mismatch")
    floats_edge("export", run.path, "-o", bundle, *words)
    assert max(seen) == BATCH
    seen.clear()
    floats_edge("verify", bundle, "--images", "20", "--queries", "2", "--allow-mismatch")
    assert max(seen) == BATCH


def test_compare(recipe: Recipe, seen: set[int], silent: Observer, tmp_path: Path) -> None:
    class Watcher:
        def on_footing(self, footing: Footing) -> None:
            assert footing.budgets

        def training(self, name: str, epochs: int) -> Any:
            return nullcontext(silent)

        def on_trial(self, trial: Trial) -> None:
            assert trial.results

    plan = Plan({"one": override_recipe(recipe, ("data.train_images=16",))}, "one")
    compare(plan, 1, tmp_path / "study", Watcher(), equal="seconds")
    assert max(seen) == BATCH


def test_large_batches_of_training_are_not_needed_to_evaluate(recipe: Recipe) -> None:
    assert evaluation_batch(4096) == 128
