"""``study.json``: variants of one recipe, trained on equal footing and evaluated over lambda."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from floats_edge.artifacts.accuracy import LambdaResult
from floats_edge.artifacts.files import read_json, write_atomic
from floats_edge.recipe import Attack, Evaluate, Section

STUDY = "study.json"
TRIAL = "trial.json"
_REMEDY = "write it again: floats-edge compare RECIPE"


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
    evaluation: Evaluate | None = Field(default=None, description="how it was evaluated; None: that was not kept yet")
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
    def hypervolume(self) -> float:
        """See :func:`hypervolume`."""
        return hypervolume([(result.clean.percent, result.robust.percent) for result in self.results])


class Study(Section):
    """``study.json``."""

    kind: Literal["study"] = "study"
    schema_version: Literal[1] = 1
    name: str
    dataset: str
    split: Literal["validation", "test"]
    attack: Attack = Field(description="of the evaluation; by PGD alone, robust accuracy is an upper bound")
    trials: tuple[Trial, ...] = Field(min_length=1)
    conditions: dict[str, str] = Field(description="machine, threads, versions: what the times were taken under")


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Area of the (clean %, robust %) plane that the points dominate, the origin as reference: 0 to 10,000."""
    area = best = 0.0
    for clean, robust in sorted(points, reverse=True):
        area += clean * max(0.0, robust - best)
        best = max(best, robust)
    return area


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
    return read_json(folder / TRIAL, Trial, _REMEDY)


def save_study(study: Study, path: Path) -> None:
    """Write a study as JSON, atomically.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, (study.model_dump_json(indent=2) + "\n").encode())


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        ArtifactError: no such file, or not valid.
    """
    return read_json(path, Study, _REMEDY)
