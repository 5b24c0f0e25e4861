"""The training stage: a recipe and its images become a run folder."""

from pathlib import Path

from torch import nn

from floats_edge.artifacts.checkpoint import Epoch, TrainingRun
from floats_edge.data import Datasets, Place, Reading, load_data
from floats_edge.networks.spec import Code, NetworkSpec
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import load_recipe, override_recipe
from floats_edge.training import loop
from floats_edge.training.distributed import ALONE, Workers


class Unwatched:
    """An observer of training that does nothing."""

    def on_images(self, done: int, total: int) -> None:
        pass

    def on_start(self, remarks: tuple[str, ...]) -> None:
        pass

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        pass

    def on_epoch(self, epoch: Epoch) -> None:
        pass


def train(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    options: tuple[str, ...] = (),
    data: Place = None,
    device: str = "cpu",
    resume: bool = False,
    allow_code: bool = False,
    module: nn.Module | None = None,
    reading: Reading | None = None,
    observer: loop.Observer | None = None,
    workers: Workers = ALONE,
) -> TrainingRun:
    """Train one network with a knob and write it into the folder ``out``, after every epoch.

    Args:
        recipe: a recipe, a YAML file, or the name of a recipe that comes with the package.
        out: run folder; created if need be.
        options: ``section.key=value`` each, which change keys of the recipe.
        data: image folder, or where data sets are downloaded to; or images in place of the recipe's.
        device: a torch device, for example ``cuda``.
        resume: continue the run in ``out`` if there is one, bit for bit.
        allow_code: run what the network source ``python`` names.
        module: the network, in place of the recipe's; its weights are where training starts.
        reading: how images are read from files; None: damaged ones are an error.
        observer: told of every step and epoch.
        workers: who train together, each calling this with the same arguments.

    Raises:
        RecipeError: the recipe is not valid or does not fit its data, or its training diverges.
        NetworkError: the network cannot be built, or the method can do nothing with it.
        DataError: the images are missing, damaged, or too many for the memory.
        ArtifactError: the run to resume is damaged, of another recipe or of other images.
        OutputError: ``out`` holds a run and ``resume`` is off, or cannot be written.
        BackendError: a worker was lost.
    """
    recipe = override_recipe(recipe, options) if isinstance(recipe, Recipe) else load_recipe(recipe, options)
    code = Code(allow_code, module)
    if isinstance(data, Datasets):
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"dataset": "given", "root": None})})
    if module is not None:
        recipe = recipe.model_copy(update={"model": NetworkSpec(source="given", name=type(module).__qualname__)})
    with workers.first_leads():
        splits = load_data(recipe.data, recipe.seed, data, reading=reading)
    return loop.train(recipe, splits, Path(out), observer or Unwatched(), device, resume, workers, code)
