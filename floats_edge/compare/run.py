"""Train and evaluate every variant with every seed; what is finished is kept, so that it can be stopped anywhere."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.study import (
    STUDY,
    TRIAL,
    Equal,
    Footing,
    Study,
    Trial,
    load_study,
    load_trial,
    save_study,
    save_trial,
)
from floats_edge.compare.complexity import complexity
from floats_edge.compare.footing import check_kept, find_footing
from floats_edge.compare.plan import Plan, with_epochs, with_seed
from floats_edge.compare.timing import conditions
from floats_edge.data import Place, Reading, Splits, load_data
from floats_edge.evaluation.batch import evaluation_batch
from floats_edge.evaluation.robustness import evaluate
from floats_edge.float32 import float32_as
from floats_edge.networks.spec import NO_CODE, Code
from floats_edge.runtime.torch import trained_predictor
from floats_edge.training.loop import Observer, train

Split = Literal["validation", "test"]


class Watcher(Protocol):
    """Who watches a comparison."""

    def on_footing(self, footing: Footing) -> None:
        """Before the first training, when it is known how long each variant trains."""

    def training(self, name: str, epochs: int) -> AbstractContextManager[Observer]:
        """Watches the training of one trial."""
        ...

    def on_trial(self, trial: Trial) -> None:
        """After a trial was evaluated and saved, or found finished."""


def compare(
    plan: Plan,
    seeds: int,
    out: Path,
    watcher: Watcher,
    data: Place = None,
    device: str = "cpu",
    split: Split = "test",
    reading: Reading | None = None,
    code: Code = NO_CODE,
    equal: Equal = "epochs",
) -> Study:
    """Train and evaluate the variants of a plan, seed by seed, and write ``study.json`` into the folder ``out``.

    It is written before the first training, too: with how long each variant trains, which a repeated call keeps.

    Args:
        plan: recipes on equal footing.
        seeds: how many seeds, counted from the recipes' own.
        out: one folder for each variant, therein one run for each seed; finished trials are used again.
        watcher: told of progress.
        data: where the recipes' images are, if not where they say.
        device: a torch device.
        split: images to evaluate on; choices belong on ``validation``.
        reading: how images are read from files.
        code: of the user's that stands for the network.
        equal: what all variants have as much of as the reference.

    Raises:
        RecipeError: a recipe does not fit its data, or its training diverges.
        ArtifactError: the study or a run in ``out`` is damaged, older than this version, or of another plan.
        DataError: the images cannot be read.
        OutputError: ``out`` cannot be written.
    """
    kept = load_study(out / STUDY) if (out / STUDY).exists() else None
    if kept is not None:
        check_kept(kept.footing, plan, equal, out)
    first = next(iter(plan.variants.values()))
    splits = load_data(first.data, first.seed, data, reading=reading)
    footing = find_footing(plan, equal, kept and kept.footing, splits, device, code)
    study = _empty(out.name, plan, footing, split, device)
    save_study(study if kept is None else kept.model_copy(update={"footing": footing}), out / STUDY)
    watcher.on_footing(footing)
    trials: list[Trial] = []
    for seed in range(seeds):
        if seed > 0:
            splits = load_data(first.data, first.seed + seed, data, reading=reading)
        for name, base in plan.variants.items():
            recipe = with_epochs(with_seed(base, seed), footing.budgets[name].epochs)
            folder = out / name / f"seed-{recipe.seed}"
            with watcher.training(f"{name}, seed {recipe.seed}", recipe.train.epochs) as observer:
                run = train(recipe, splits, folder, observer, device, resume=True, code=code)
            trials.append(_trial(name, run, splits, split, device, code))
            watcher.on_trial(trials[-1])
    study = study.model_copy(update={"trials": tuple(trials)})
    save_study(study, out / STUDY)
    return study


def _empty(name: str, plan: Plan, footing: Footing, split: Split, device: str) -> Study:
    """A study that has just begun."""
    recipe = next(iter(plan.variants.values()))
    return Study(
        name=name,
        dataset=recipe.data.dataset,
        split=split,
        attack=recipe.evaluate.attack,
        reference=plan.reference,
        envelopes=dict(plan.envelopes),
        footing=footing,
        trials=(),
        conditions=conditions(device, recipe.train),
    )


@float32_as("ieee")
def _trial(name: str, run: TrainingRun, splits: Splits, split: Split, device: str, code: Code) -> Trial:
    """Evaluate a finished run, unless that was done in the way of its recipe."""
    folder, checkpoint, recipe = run.path / split, run.checkpoint, run.checkpoint.recipe
    if (folder / TRIAL).is_file():
        trial = load_trial(folder)
        if (trial.weights_sha256, trial.evaluation) == (run.weights_sha256, recipe.evaluate):
            return trial
    images = (splits.test if split == "test" else splits.validation).first(recipe.evaluate.images)
    network = trained_predictor(run, device, code)
    lambdas, attack, batch = recipe.evaluate.lambdas, recipe.evaluate.attack, evaluation_batch(recipe.train.batch_size)
    results = evaluate(network, network, images, lambdas, attack, recipe.seed, batch=batch)
    alpha = checkpoint.history[-1].alpha.values()
    trial = Trial(
        variant=name,
        method=recipe.method,
        sparsity=recipe.sparsity.title,
        train_attack=recipe.attack,
        seed=recipe.seed,
        weights_sha256=run.weights_sha256,
        evaluation=recipe.evaluate,
        results=results,
        complexity=complexity(run, code),
        steps=recipe.train.epochs * (len(splits.train) // recipe.train.batch_size),
        train_s=sum(epoch.seconds for epoch in checkpoint.history),
        largest_alpha=max(map(abs, alpha)) if alpha else None,
        overfitted_epochs=sum(epoch.overfitted for epoch in checkpoint.history),
    )
    save_trial(trial, folder)
    return trial
