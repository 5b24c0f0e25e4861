"""``study.json``: variants of one recipe, trained on equal footing and evaluated over lambda."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from floats_edge.artifacts.accuracy import LambdaResult
from floats_edge.artifacts.files import read_json, write_atomic
from floats_edge.artifacts.tradeoff import Point, hypervolume
from floats_edge.recipe import Attack, Evaluate, Recipe, Section

STUDY = "study.json"
TRIAL = "trial.json"
_REMEDY = "make it anew in a new folder: floats-edge compare RECIPE --out DIR"
_TRIAL_REMEDY = "delete it and repeat floats-edge compare, which then evaluates the run again"

Equal = Literal["epochs", "passes", "seconds"]
"""What all variants have as much of; ``passes``: training images that the network sees, clean or attacked."""

WITH_KNOB = ("float", "oat")
"""Methods whose network is another at every lambda; that of all others is the same everywhere, one point."""


class Timing(Section):
    """Seconds of one epoch, from single training steps that were timed in turn with those of other variants."""

    median: float = Field(gt=0)
    low: float = Field(gt=0, description="lower quartile")
    high: float = Field(gt=0, description="upper quartile")
    steps: int = Field(gt=0, description="that were timed")
    conditions: dict[str, str] = Field(description="machine, threads, versions")


class Budget(Section):
    """How long one variant is trained."""

    recipe: Recipe = Field(description="as it was planned: its epochs are those before the footing was chosen")
    epochs: int = Field(gt=0, description="that it trains")
    images: int = Field(gt=0, description="that the network sees at the updates of one epoch, clean and attacked")
    timing: Timing | None = Field(description="None: not timed, as seconds did not matter")


class Footing(Section):
    """What the variants have as much of, and the epochs that follow from it."""

    equal: Equal
    reference: tuple[str, ...] = Field(min_length=1, description="variants that, together, the others train as long as")
    budgets: dict[str, Budget] = Field(description="by variant")


class Complexity(Section):
    """What a trained network costs."""

    parameters: int = Field(description="trained, BatchNorm and FiLM included, removed channels not")
    nonzeros: int = Field(description="parameters less masked weights")
    macs: int = Field(description="multiply-accumulates of one image, as served: folded unless it is OAT's")
    nonzero_macs: int = Field(description="the same without masked weights; hardware gains little by it")
    bytes: int = Field(description="safetensors that serve every lambda: sparse weights packed, noise by its seed")


class Trial(Section):
    """One variant, trained with one seed and evaluated."""

    variant: str
    method: str
    sparsity: str
    train_attack: Attack
    seed: int
    weights_sha256: str
    evaluation: Evaluate = Field(description="how it was evaluated")
    results: tuple[LambdaResult, ...]
    complexity: Complexity
    steps: int = Field(gt=0)
    train_s: float = Field(ge=0, description="all epochs, without their checks")
    largest_alpha: float | None = Field(description="max |alpha| at the end; None: there is none")
    overfitted_epochs: int = Field(ge=0, description="catastrophically, by the check of every epoch")

    @property
    def step_ms(self) -> float:
        return 1e3 * self.train_s / self.steps

    @property
    def points(self) -> list[Point]:
        """Where the plane of clean and robust accuracy is reached, by lambda."""
        return [(result.clean.percent, result.robust.percent) for result in self.results]

    @property
    def hypervolume(self) -> float:
        """See :func:`~floats_edge.artifacts.tradeoff.hypervolume`."""
        return hypervolume(self.points)

    def point(self, lam: float) -> Point | None:
        """What is reached at ``lam``, by a network without a knob at any; None: it was not evaluated there."""
        known = {result.lam: point for result, point in zip(self.results, self.points, strict=True)}
        return known.get(lam) if self.method in WITH_KNOB else self.points[0]


class Study(Section):
    """``study.json``."""

    kind: Literal["study"] = "study"
    schema_version: Literal[2] = 2
    name: str
    dataset: str
    split: Literal["validation", "test"]
    attack: Attack = Field(description="of the evaluation; by PGD alone, robust accuracy is an upper bound")
    reference: str = Field(description="variant or envelope that the others are compared with, seed by seed")
    envelopes: dict[str, tuple[str, ...]] = Field(description="groups of variants without a knob, by name")
    footing: Footing
    trials: tuple[Trial, ...] = Field(description="none: the study has just begun")
    conditions: dict[str, str] = Field(description="machine, threads, versions: what the times were taken under")


def save_trial(trial: Trial, folder: Path) -> None:
    """Write a trial into the folder of its run.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(folder / TRIAL, (trial.model_dump_json(indent=2) + "\n").encode())


def load_trial(folder: Path) -> Trial:
    """Read the trial of a run.

    Raises:
        ArtifactError: there is none, or it is not valid.
    """
    return read_json(folder / TRIAL, Trial, _TRIAL_REMEDY)


def save_study(study: Study, path: Path) -> None:
    """Write a study as JSON, atomically.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, (study.model_dump_json(indent=2) + "\n").encode())


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        ArtifactError: no such file, not valid, or of an older schema version.
    """
    return read_json(path, Study, _REMEDY)
