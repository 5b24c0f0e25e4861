"""The run in a folder that training may go on with."""

from pathlib import Path
from typing import Any

from floats_edge.artifacts.checkpoint import TrainingRun, is_run, open_run
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError, DataError, OutputError
from floats_edge.images import ImageKind
from floats_edge.networks.spec import ImageSpec
from floats_edge.recipe import Recipe, read_by_training


def previous_run(path: Path, recipe: Recipe, resume: bool) -> TrainingRun | None:
    """The run of ``recipe`` in the folder ``path`` that is to be continued; None to begin one there.

    Its recipe may differ in what training does not read: its name, how it is evaluated, and where its images are.

    Raises:
        ArtifactError: the run is damaged, or of another recipe.
        OutputError: there is a run and ``resume`` is off, or the folder holds something else.
    """
    if not is_run(path):
        _check_no_foreign_files(path)
        return None
    if not resume:
        raise OutputError(
            f"{path} already holds a run.", fix="continue it with --resume, or choose another folder with --out"
        )
    run = open_run(path)
    if changed := changed_keys(run.checkpoint.recipe, recipe):
        raise ArtifactError(
            f"{path} was trained by another recipe: {', '.join(changed)} differ.",
            fix=f"resume with {path / 'recipe.yaml'}, or choose another --out",
        )
    return run


def changed_keys(before: Recipe, now: Recipe) -> list[str]:
    """The choices on which training depends and in which two recipes differ."""
    old, new = _by_key(before), _by_key(now)
    return [key for key in new if new[key] != old[key]]


def _by_key(recipe: Recipe) -> dict[str, Any]:
    return {
        f"{section}.{key}" if key else section: value
        for section, values in read_by_training(recipe).items()
        for key, value in (values.items() if isinstance(values, dict) else (("", values),))
    }


def _check_no_foreign_files(path: Path) -> None:
    """Training writes files of common names, such as recipe.yaml, so it begins in a folder that holds nothing else."""
    left_by_a_first_epoch = (".weights-", ".state-", "weights-", "state-")
    entries = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    foreign = [name for name in entries if not name.startswith(left_by_a_first_epoch)]
    if foreign:
        raise OutputError(f"{path} holds no run, but {foreign[0]}.", fix="choose an empty or new folder with --out")


def check_same_images(run: TrainingRun, spec: ImageSpec, splits: Splits) -> None:
    """Check that a run to continue was trained on images of this kind and these statistics.

    Raises:
        ArtifactError: it was not.
    """
    remedy = "resume with the --data-dir it was trained with, or choose another --out"
    try:
        ImageKind(run.checkpoint.labels, run.checkpoint.images.preprocessing).check(splits.labels, splits.train)
    except DataError as error:
        raise ArtifactError(f"{run.path} was trained on other images: {error.what}", fix=remedy) from None
    if run.checkpoint.images != spec:
        raise ArtifactError(f"{run.path} was trained on other images: their statistics differ.", fix=remedy)
