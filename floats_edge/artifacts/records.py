"""Schemas of evaluation.json, profile.json and comparison.json: figures with unit, sample size, conditions, source."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, RootModel, Tag, model_validator
from typing_extensions import Self

from floats_edge.artifacts.accuracy import OTHERS, LambdaAnswers
from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.corruptions import Corruptions
from floats_edge.artifacts.examples import Examples, Pictures, read_pictures
from floats_edge.artifacts.files import read_json, write_atomic
from floats_edge.artifacts.manifest import Precision
from floats_edge.artifacts.transfer import Transfer
from floats_edge.float32 import Float32
from floats_edge.preprocessing import ResolvedPreprocessing
from floats_edge.recipe import Attack, Lambda, Noise, Section

EVALUATION = "evaluation.json"
PROFILE = "profile.json"

MOST_LISTED = 100_000
"""Wrong answers that an evaluation lists, over all of its confusion matrices: it must be a file that can be read."""
LARGEST_RECORD = 64 * 2**20
"""Of a record, in bytes."""
_MOST_COMMAS = 2**19


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
    train_float32: Float32 = Field(description="products of float32 that it was trained with, where that was on a GPU")
    preprocessing: ResolvedPreprocessing = Field(description="how an image becomes the network's input")


class Evaluation(Section):
    """``evaluation.json``: clean and attacked accuracy over lambda by class, and how sure the network was."""

    kind: Literal["evaluation"] = "evaluation"
    schema_version: Literal[3] = 3
    subject: Subject
    backend: str
    dataset: str
    split: Literal["validation", "test"]
    attack: Attack
    attacked: str = Field(description="the network the gradients came from")
    noise: Noise | None = Field(
        default=None,
        description="of the network under evaluation: the frozen draw, as deployed, or a fresh one for every batch; "
        "None: it has none",
    )
    eot: int = Field(default=1, ge=1, description="draws of resampled noise over which each gradient is averaged")
    upper_bound: Literal[True] = Field(
        default=True, description="PGD alone overstates robustness: read robust as 'at most'"
    )
    seed: int
    labels: tuple[str, ...] = Field(min_length=1, description="classes, in the order of the logits")
    results: tuple[LambdaAnswers, ...] = Field(min_length=1)
    transfer: Transfer | None = Field(default=None, description="attacks at one lambda on another; None: not measured")
    corruptions: Corruptions | None = Field(default=None, description="the images corrupted; None: not measured")
    examples: Examples | None = Field(default=None, description="images that the network got wrong; None: not kept")
    float32: Literal["ieee"] = Field(default="ieee", description="products of float32 in evaluation, on GPUs too")
    versions: dict[str, str]

    @model_validator(mode="after")
    def _of_these_classes(self) -> Self:
        known = {*self.labels, OTHERS}
        if len(known) <= len(self.labels):
            raise ValueError("labels: a class has no name, or two have the same")
        named = {name for result in self.results for name in result.images}
        for result in self.results:
            rows = (*result.clean_answers.values(), *result.attacked_answers.values())
            named.update(answer for row in rows for answer in row)
            if result.images != self.results[0].images:
                raise ValueError("results: the lambdas are not evaluated on the same images")
        shown = () if self.examples is None else self.examples.shown
        named.update(name for example in shown for name in (example.truth, example.clean, example.attacked))
        if unknown := sorted(named - known):
            raise ValueError(f"{unknown[0]!r} is none of the labels")
        if self.transfer is not None:
            known_robust = tuple((result.lam, result.robust.count) for result in self.results)
            diagonal = (row[place] for place, row in enumerate(self.transfer.by_lambda))
            if tuple(zip(self.transfer.lambdas, diagonal, strict=True)) != known_robust:
                raise ValueError("transfer: attacks at the lambda served are not those of the results")
        if (found := self.corruptions) is not None:
            images = {(result.lam, result.clean.total) for result in self.results}
            if {(lam, found.images) for lam in found.lambdas} != images:
                raise ValueError("corruptions: their images and lambdas are not those of the results")
        if not {example.lam for example in shown} <= {result.lam for result in self.results}:
            raise ValueError("examples: they are of a lambda that was not evaluated")
        return self


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
    p95: float = Field(ge=0)
    p99: float = Field(ge=0)
    maximum: float = Field(ge=0)

    @property
    def variation(self) -> float:
        """Coefficient of variation: standard deviation over mean."""
        return self.std / self.mean if self.mean else 0.0


class Sampled(Section):
    """A condition before, during and after timed inferences, or the reason why it is not known."""

    unit: str
    source: str = Field(min_length=1, description="where it was read, or why it could not be")
    before: float | None
    minimum: float | None = Field(description="of the samples taken during the timed inferences, as mean and maximum")
    mean: float | None
    maximum: float | None
    n: int = Field(ge=0, description="samples during the timed inferences")
    after: float | None


class Run(Section):
    """One backend at one batch size and number of streams, in a process of its own."""

    backend: str
    batch: int = Field(gt=0)
    streams: int = Field(gt=0, description="predictors that run at the same time, each in a thread of its own")
    threads: int | None = Field(description="threads of each predictor; None: the backend decides")
    lam: Lambda
    warmup_s: float = Field(ge=0, description="time spent on inferences that do not count")
    includes: str = Field(description="what one timed inference covers")
    latency_ms: Latency
    device_ms: Latency | None = Field(description="the same without copies; None: the backend cannot tell")
    device_includes: str | None = Field(description="what one time of device_ms covers, and by which clock")
    throughput: float = Field(description="images/s of all streams together: images over the time they took")
    load_ms: float = Field(description="importing the backend's library and opening the artifact")
    first_inference_ms: float = Field(description="the first inference after loading, alone")
    set_lambda_ms: Latency | None = Field(
        description="one switch; None: it serves one lambda only, or ran in several streams"
    )
    memory: dict[str, Reading]
    energy: dict[str, Reading] = Field(description="power while it ran, power idle, and energy per inference less idle")
    conditions: dict[str, Sampled] = Field(description="clocks, temperatures, power and load over the run")
    marks: tuple[str, ...] = Field(description="what makes the figures doubtful, with its likely cause")


class Layer(Section):
    """One layer of the model, several that share a kernel, or what runs between the layers."""

    name: str = Field(
        description="of the model's layer; of several that share a kernel, joined by +; of the kernel if it is of none"
    )
    operator: str
    precision: Precision | None = Field(
        description="of its numbers in the graph; a backend may compute in a wider one. None: no layer with weights, "
        "or several of unlike precision"
    )
    time_us: float = Field(ge=0, description="median over the inferences; of several kernels the sum")
    share: float = Field(ge=0, le=1, description="of the summed time of all layers")
    macs: int | None = Field(
        description="multiply-accumulates of one inference, zeros counted; None: no layer with weights"
    )
    weights: int | None
    nonzeros: int | None
    bytes: int | None = Field(
        description="weights, input and output of one inference, each once, in its precision; None: no layer with "
        "weights, or several, which may share tensors"
    )
    sparse: bool | None = Field(description="whether a kernel for 2:4 weights ran; None: the backend does not tell")
    gflops: float | None = Field(default=None, description="attained, in 10^9 operations/s; a MAC is two")
    gb_s: float | None = Field(default=None, description="attained, in 10^9 bytes/s")
    attainable_us: float | None = Field(
        default=None, description="least time for its work at the peaks of the trace; None: a peak is not known"
    )
    bound: Literal["arithmetic", "memory"] | None = Field(default=None, description="which peak takes longer")

    @property
    def attained(self) -> float | None:
        """Attainable time over time: 1 is the roof. Above it, its data came from a cache."""
        return None if self.attainable_us is None or not self.time_us else self.attainable_us / self.time_us


class Peaks(Section):
    """What a device attains at most."""

    arithmetic: dict[Precision, Reading] = Field(description="GFLOP/s, by precision of the layers")
    memory: Reading = Field(description="GB/s of the memory that layers read and write")


class Trace(Section):
    """Time per layer of one backend, measured apart from the latencies, because tracing slows inferences down."""

    backend: str
    batch: int = Field(gt=0)
    n: int = Field(gt=0, description="inferences")
    source: str
    device: Literal["cpu", "gpu"]
    threads: int | None = Field(description="of the host, per inference; None: the backend decides")
    peaks: Peaks | None = Field(description="what the layers are held against; None: not looked up")
    layers: tuple[Layer, ...]


class Estimate(Section):
    """What a board cannot beat on paper. An estimate, not a measurement."""

    board: str
    precision: str
    sparse: bool = Field(description="counts on the doubled peak of 2:4 weights in every layer")
    batch: int = Field(gt=0)
    latency_ms: float = Field(ge=0, description="lower bound: no launch, copy or idle time, peak rates in every layer")
    bound: Literal["arithmetic", "memory"] = Field(description="what most of that time is spent on")
    source: str = Field(description="of the board's peak figures")


class Profile(Section):
    """``profile.json``: latency, memory, energy and layers of one bundle on one machine."""

    kind: Literal["profile"] = "profile"
    schema_version: Literal[2] = 2
    subject: Subject
    size: dict[str, Reading] = Field(description="bytes on disk by part of the bundle")
    conditions: dict[str, Reading | str] = Field(description="machine, power mode, versions: what stays as it is")
    runs: tuple[Run, ...] = Field(min_length=1)
    traces: tuple[Trace, ...]
    estimates: tuple[Estimate, ...]
    skipped: dict[str, str] = Field(description="what was asked for and did not run, with the reason")
    incomplete: str | None = Field(description="what ended the profile early; None: it ran to its end")


class Ratio(Section):
    """How the latencies of two bundles compare: the median over pairs of processes of the ratio of their medians."""

    over: int = Field(ge=0, description="index of the subject whose latency is divided")
    under: int = Field(ge=0, description="index of the subject it is divided by")
    ratio: float = Field(gt=0)
    low: float = Field(gt=0, description="of the interval by order statistics of the pairs")
    high: float = Field(gt=0)
    confidence: float = Field(gt=0, lt=1, description="of the interval: at least 0.95")
    pairs: int = Field(gt=0)


class Comparison(Section):
    """``comparison.json``: bundles run in turn, so that what the machine does meanwhile meets all of them."""

    kind: Literal["comparison"] = "comparison"
    schema_version: Literal[1] = 1
    subjects: tuple[Subject, ...] = Field(min_length=2)
    backend: str
    batch: int = Field(gt=0)
    lambdas: tuple[Lambda, ...] = Field(description="in force, by subject")
    p50_ms: tuple[float, ...] = Field(description="median over all inferences, by subject")
    n: tuple[int, ...] = Field(description="inferences, by subject")
    method: str
    ratios: tuple[Ratio, ...]
    conditions: dict[str, Reading | str] = Field(description="machine, power mode, versions: what stays as it is")
    sampled: dict[str, Sampled] = Field(description="clocks, temperatures, power and load while the bundles took turns")
    marks: tuple[str, ...] = Field(description="what makes the ratios doubtful")


Record = Evaluation | Profile | Comparison


def _kind(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


class _AnyRecord(
    RootModel[
        Annotated[
            Annotated[Evaluation, Tag("evaluation")]
            | Annotated[Profile, Tag("profile")]
            | Annotated[Comparison, Tag("comparison")],
            Discriminator(
                _kind,
                custom_error_type="no_record",
                custom_error_message="it should be an object whose kind is evaluation, profile or comparison",
            ),
        ]
    ]
):
    """A record of any kind, told apart by its ``kind``."""


def bundle_subject(bundle: Bundle) -> Subject:
    """How records name a bundle."""
    manifest = bundle.manifest
    return Subject(
        kind="bundle",
        path=str(bundle.path),
        name=manifest.recipe.name,
        model=manifest.network,
        sha256=manifest.checkpoint_sha256,
        density=manifest.density,
        mode=manifest.lam.mode,
        precision=manifest.precision,
        train_float32=manifest.recipe.train.float32,
        preprocessing=manifest.input.preprocessing,
    )


def run_subject(run: TrainingRun) -> Subject:
    """How records name a trained run."""
    checkpoint = run.checkpoint
    return Subject(
        kind="checkpoint",
        path=str(run.path),
        name=checkpoint.recipe.name,
        model=checkpoint.recipe.model.title,
        sha256=run.weights_sha256,
        density=checkpoint.history[-1].density,
        mode=None,
        precision="fp32",
        train_float32=checkpoint.recipe.train.float32,
        preprocessing=checkpoint.images.preprocessing,
    )


def save_record(record: Record, path: Path) -> None:
    """Write a record as JSON, atomically.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, (record.model_dump_json(indent=2) + "\n").encode())


def load_record(path: Path) -> Record:
    """Read a record of any kind.

    Raises:
        ArtifactError: no such file, or not a valid record.
    """
    remedy = (
        "give what floats-edge evaluate or floats-edge profile wrote, or run it again if the file is an older one's; "
        "floats-edge inspect shows bundles and runs"
    )
    return read_json(path, _AnyRecord, remedy, LARGEST_RECORD, _MOST_COMMAS).root


def load_pictures(record: Record, path: Path) -> Pictures | None:
    """The pictures of a record's examples, which stand beside its file ``path``; None: there are none.

    Raises:
        ArtifactError: their file leads elsewhere, or is not what was written.
    """
    examples = record.examples if isinstance(record, Evaluation) else None
    return None if examples is None else read_pictures(examples, path.parent)
