"""Schemas of ``evaluation.json`` and ``profile.json``: figures with their unit, sample size, conditions and source."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, RootModel, model_validator
from typing_extensions import Self

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.files import read_json, write_atomic
from floats_edge.recipe import Attack, Lambda, Section

EVALUATION = "evaluation.json"
PROFILE = "profile.json"


class Subject(Section):
    """What was measured."""

    kind: Literal["checkpoint", "bundle"]
    path: str
    name: str = Field(description="name of the recipe")
    model: str
    sha256: str = Field(description="of the trained weights")
    density: float
    mode: str | None = Field(description="lambda mode of a bundle")
    precision: str


class Share(Section):
    """A share of images, with its Wilson 95 % interval (Wilson 1927)."""

    count: int = Field(ge=0)
    total: int = Field(gt=0)

    @model_validator(mode="after")
    def _part_of_total(self) -> Self:
        if self.count > self.total:
            raise ValueError(f"{self.count} of {self.total} is no share")
        return self

    @property
    def percent(self) -> float:
        return 100.0 * self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound, in percent."""
        z, n, p = 1.959964, self.total, self.count / self.total
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return 100.0 * max(0.0, centre - half), 100.0 * min(1.0, centre + half)


class LambdaResult(Section):
    """Accuracy at one lambda."""

    lam: Lambda
    clean: Share
    robust: Share


class Evaluation(Section):
    """``evaluation.json``: clean and attacked accuracy over lambda."""

    kind: Literal["evaluation"] = "evaluation"
    schema_version: Literal[1] = 1
    subject: Subject
    backend: str
    dataset: str
    split: Literal["validation", "test"]
    attack: Attack
    attacked: str = Field(description="the network the gradients came from")
    upper_bound: Literal[True] = Field(
        default=True, description="PGD alone overstates robustness: read robust as 'at most'"
    )
    seed: int
    results: tuple[LambdaResult, ...]
    versions: dict[str, str]


class Reading(Section):
    """One measured quantity, or the reason why there is none."""

    value: float | None
    unit: str
    source: str = Field(min_length=1, description="where it was read, or why it could not be")


class Latency(Section):
    """Distribution of single calls, in ms."""

    n: int = Field(gt=0)
    mean: float = Field(ge=0)
    std: float = Field(ge=0, description="of the sample (n - 1)")
    minimum: float = Field(ge=0)
    p50: float = Field(ge=0)
    p90: float = Field(ge=0)
    p99: float = Field(ge=0)
    maximum: float = Field(ge=0)


class Run(Section):
    """One backend at one batch size, in a process of its own."""

    backend: str
    batch: int = Field(gt=0)
    lam: Lambda
    warmup_s: float = Field(ge=0, description="time spent on inferences that do not count")
    includes: str = Field(description="what one timed inference covers")
    latency_ms: Latency
    throughput: float = Field(description="images/s of one caller: images over the summed inference times")
    load_ms: float = Field(description="importing the backend's library and opening the artifact")
    first_inference_ms: float = Field(description="the first inference after loading, alone")
    set_lambda_ms: Latency | None = Field(description="one switch; None: the artifact serves one lambda only")
    memory: dict[str, Reading]


class Profile(Section):
    """``profile.json``: latency and memory of one bundle on one machine."""

    kind: Literal["profile"] = "profile"
    schema_version: Literal[1] = 1
    subject: Subject
    size: dict[str, Reading] = Field(description="bytes on disk by part of the bundle")
    conditions: dict[str, Reading | str] = Field(description="machine, clocks, power mode, versions")
    runs: tuple[Run, ...] = Field(min_length=1)
    skipped: dict[str, str] = Field(description="what was asked for and did not run, with the reason")


Record = Evaluation | Profile


class _AnyRecord(RootModel[Annotated[Record, Field(discriminator="kind")]]):
    """A record of either kind, told apart by its ``kind``."""


def bundle_subject(bundle: Bundle) -> Subject:
    """How records name a bundle."""
    manifest = bundle.manifest
    return Subject(
        kind="bundle",
        path=str(bundle.path),
        name=manifest.recipe.name,
        model=f"{manifest.model.arch}, width {manifest.model.width}",
        sha256=manifest.checkpoint_sha256,
        density=manifest.density,
        mode=manifest.lam.mode,
        precision=manifest.precision,
    )


def run_subject(run: TrainingRun) -> Subject:
    """How records name a trained run."""
    checkpoint = run.checkpoint
    return Subject(
        kind="checkpoint",
        path=str(run.path),
        name=checkpoint.recipe.name,
        model=f"{checkpoint.model.arch}, width {checkpoint.model.width}",
        sha256=run.weights_sha256,
        density=checkpoint.history[-1].density,
        mode=None,
        precision="fp32",
    )


def save_record(record: Record, path: Path) -> None:
    """Write a record as JSON, atomically.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, (record.model_dump_json(indent=2) + "\n").encode())


def load_record(path: Path) -> Record:
    """Read a record of either kind.

    Raises:
        ArtifactError: no such file, or not a valid record.
    """
    return read_json(path, _AnyRecord, "write it again with floats-edge evaluate or floats-edge profile").root
