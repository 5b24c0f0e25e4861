"""Schemas of ``evaluation.json`` and ``profile.json``: figures with their unit, sample size, conditions and source."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from floats_edge.artifacts.files import write_atomic
from floats_edge.errors import ArtifactError
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

    @property
    def percent(self) -> float:
        return 100.0 * self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound, in percent."""
        z, n, p = 1.959964, self.total, self.count / self.total
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return 100.0 * (centre - half), 100.0 * (centre + half)


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
    upper_bound: Literal[True] = Field(True, description="PGD alone overstates robustness: read robust as 'at most'")
    seed: int
    results: tuple[LambdaResult, ...]
    versions: dict[str, str]


class Reading(Section):
    """One measured quantity, or the reason why there is none."""

    value: float | None
    unit: str
    source: str = Field(description="where it was read, or why it could not be")


class Latency(Section):
    """Times of single inferences, in ms."""

    n: int = Field(gt=0)
    mean: float
    std: float
    minimum: float
    p50: float
    p90: float
    p99: float
    maximum: float


class Run(Section):
    """One backend at one batch size."""

    backend: str
    batch: int
    lam: Lambda
    warmup_s: float
    includes: str = Field(description="what one timed inference covers, for example host-to-device copies")
    latency_ms: Latency
    throughput: float = Field(description="images/s, from the total time")
    load_ms: float
    first_inference_ms: float
    set_lambda_ms: Latency | None = Field(description="None: the artifact serves one lambda only")
    memory: dict[str, Reading]


class Profile(Section):
    """``profile.json``: latency and memory of one bundle on one machine."""

    kind: Literal["profile"] = "profile"
    schema_version: Literal[1] = 1
    subject: Subject
    size: dict[str, Reading] = Field(description="bytes on disk by part of the bundle")
    conditions: dict[str, Reading | str] = Field(description="machine, clocks, power mode, versions")
    runs: tuple[Run, ...]
    skipped: dict[str, str] = Field(description="backends that were asked for and did not run, with the reason")


_RECORD: TypeAdapter[Evaluation | Profile] = TypeAdapter(Annotated[Evaluation | Profile, Field(discriminator="kind")])


def save_record(record: Evaluation | Profile, path: Path) -> None:
    """Write a record as JSON, atomically.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, (record.model_dump_json(indent=2) + "\n").encode())


def load_record(path: Path) -> Evaluation | Profile:
    """Read a record of either kind.

    Raises:
        ArtifactError: no such file, or not a valid record.
    """
    fix = "write it again with floats-edge evaluate or floats-edge profile"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.", fix=fix) from None
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ArtifactError(f"{path} is not a valid record: {where}: {problem['msg']}.", fix=fix) from None
