"""What a bundle says of itself: the schema of ``manifest.json``, shared with C++ as ``export/schema``."""

import math
import operator
from collections import Counter
from collections.abc import Set
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from floats_edge.artifacts.bounds import (
    LARGEST_TENSOR,
    LARGEST_TOLERANCE,
    MOST_BACKENDS,
    MOST_ENGINES,
    MOST_FILES,
    MOST_LABELS,
    MOST_LAYERS,
    MOST_PROBLEMS,
    Axis,
    Lambdas,
    LayerNames,
    Name,
    Remark,
)
from floats_edge.artifacts.files import FileEntry, FileName
from floats_edge.method.fold import MOST_LAMBDAS
from floats_edge.preprocessing import ResolvedPreprocessing
from floats_edge.recipe import Attack, Lambda, Recipe, Section

SCHEMA_VERSION = 2

Mode = Literal["fixed", "bank", "bound", "input", "refit"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
RUNTIME_MODES: tuple[Mode, ...] = ("bound", "input", "refit")
"""Modes that serve any lambda with one graph."""
WEIGHTS_APART: tuple[Mode, ...] = ("bound", "refit")
"""Modes whose predictor computes W(lambda) from a weights file."""
LAMBDA_INPUT = "lambda"
"""Name of the scalar float32 graph input of mode ``input``."""
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
KeptPrecision = Literal["fp32", "fp16"]
"""What int8 may leave layers in."""
Flavour = Literal["tensorrt", "tensorrt_rtx"]
Compatibility = Literal["version", "same-cc", "ampere+"]
"""Where an engine of the full TensorRT runs beyond the version and the GPU it was built with: on newer versions; on
every GPU of its compute capability; on every GPU from Ampere on."""


class InputSpec(Section):
    """The image input. Pixel values are in [0, 1]; normalisation is inside the graph."""

    name: Name = "images"
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["float32"] = "float32"
    shape: tuple[Axis, Axis, Axis] = Field(description="(C, H, W) of one image; the batch axis is dynamic in the graph")
    minimum: float = 0.0
    maximum: float = 1.0
    preprocessing: ResolvedPreprocessing = Field(description="how an image becomes the input")

    @model_validator(mode="after")
    def _preprocessed_images_fit(self) -> Self:
        if self.preprocessing.shape != self.shape:
            raise ValueError(f"preprocessing gives images of {self.preprocessing.shape}, not of shape {self.shape}")
        return self


class OutputSpec(Section):
    """The logits, ``[N, classes]``; labels in class order."""

    name: Name = "logits"
    dtype: Literal["float32"] = "float32"
    labels: tuple[Name, ...] = Field(min_length=1, max_length=MOST_LABELS)


class LambdaSpec(Section):
    """Which lambdas the bundle serves and how."""

    mode: Mode
    values: Lambdas | None = Field(
        description="fixed and bank: the lambdas served; bound, input, refit: None, any in [0, 1]"
    )
    noise_seed: int = Field(ge=0, lt=2**63)

    @model_validator(mode="after")
    def _values_fit_mode(self) -> Self:
        count = None if self.values is None else len(self.values)
        if (self.mode in RUNTIME_MODES) != (count is None) or (self.mode == "fixed") != (count == 1):
            raise ValueError(f"mode {self.mode} does not go with lambda values {self.values}")
        return self


class LayerSpec(Section):
    """One conditioned layer; its position in the manifest is the noise's layer index."""

    name: Name
    shape: tuple[Axis, ...] = Field(
        min_length=1,
        max_length=4,
        description="of the weight: [out, in, kh, kw], [out, in], or [channels], a scale with the bias as shift",
    )
    nonzeros: int = Field(ge=0, description="weights inside the mask")
    drawn: tuple[Axis, ...] | None = Field(
        default=None, max_length=4, description="shape that the noise was drawn for, where channels were removed"
    )

    @model_validator(mode="after")
    def _holds_weights(self) -> Self:
        size = math.prod(self.shape)
        if max(size, math.prod(self.drawn or ())) > LARGEST_TENSOR:
            raise ValueError(f"{self.name} is larger than any memory")
        if self.nonzeros > size or (len(self.shape) == 1 and self.nonzeros < size):
            raise ValueError(f"{self.name} of shape {self.shape} has no weight of {self.nonzeros} non-zeros")
        return self

    @model_validator(mode="after")
    def _is_part_of_what_was_drawn(self) -> Self:
        if self.drawn is None:
            return self
        if len(self.drawn) != len(self.shape) or any(map(operator.gt, self.shape, self.drawn)):
            raise ValueError(f"{self.name} of shape {self.shape} is no part of a layer of shape {self.drawn}")
        if self.nonzeros != math.prod(self.shape):
            raise ValueError(f"{self.name} has lost channels and must be dense, but states {self.nonzeros} non-zeros")
        return self

    @property
    def trained_shape(self) -> tuple[int, ...]:
        """Of the weight in training, before channels were removed."""
        return self.drawn or self.shape


class Graph(Section):
    """One ONNX file; ``lam`` is None in a mode that serves any lambda.

    Mode ``bound``: weights and biases are inputs. Mode ``input``: the scalar ``lambda`` is an input. Mode ``refit``:
    the weights are constants, those of lambda = 0 until they are refitted.
    """

    file: FileName
    lam: Lambda | None


class SparseTactics(Section):
    """2:4 sparsity in one engine: what its weights allow and what TensorRT made of it; no word on speed."""

    layers: LayerNames = Field(description="whose weights hold 2:4 at every lambda that the engine serves")
    eligible: int | None = Field(description="layers that TensorRT found eligible for sparse tactics")
    chosen: int | None = Field(description="layers for which it chose one")
    unknown: Remark | None = Field(description="why eligible or chosen is null")


class Engine(Section):
    """One TensorRT plan and the hosts that can run it. Where several can run, the first is taken."""

    file: FileName
    lam: Lambda | None
    flavour: Flavour
    version: Name = Field(description="of the TensorRT that built it and must run it, or a newer one if compatible")
    platform: Name = Field(description="operating system and machine, for example linux-x86_64")
    targets: tuple[Name, ...] = Field(max_length=64, description="compute capabilities by name, for example sm_86")
    gpu: Name | None = Field(
        default=None, description="model whose timings chose its kernels; null: built for its targets, without a GPU"
    )
    precision: Precision
    batch: tuple[Axis, Axis, Axis] = Field(description="smallest, optimal and largest batch")
    compatibility: tuple[Compatibility, ...] = Field(
        default=(),
        max_length=3,
        description="version: newer TensorRTs run it, and it holds host code; ampere+: every GPU from Ampere on does",
    )
    dla: int | None = Field(default=None, ge=0, description="deep learning accelerator it was built for; null: the GPU")
    dla_layers: int | None = Field(
        default=None, ge=1, description="that it runs, those fused into one counted as one; null: TensorRT does not say"
    )
    sparse: SparseTactics | None = None
    mismatch: Remark | None = Field(
        default=None, description="how it missed the golden outputs, if it was let pass with --allow-mismatch"
    )

    @property
    def files(self) -> tuple[str, ...]:
        """The plan, and beside it what was said when it was built and its layers, if these were kept."""
        return self.file, *(str(PurePosixPath(self.file).with_suffix(end)) for end in (".log", ".layers.json"))

    @field_validator("batch")
    @classmethod
    def _batches_ascend(cls, batch: tuple[int, int, int]) -> tuple[int, int, int]:
        if list(batch) != sorted(batch):
            raise ValueError(f"{batch} is no smallest, optimal and largest batch")
        return batch


class Parity(Section):
    """How far an exported graph is from the trained network at one lambda, on real images."""

    lam: Lambda
    backend: Name
    reference: Name
    images: int
    top1_agreement: float = Field(description="share of images with the same first class")
    max_error: float = Field(description="largest absolute logit error over the range of the reference's logits")
    p99_error: float = Field(description="99th percentile of the same")


class Withstood(Section):
    """Images that the artefact itself classified rightly at one lambda, of those of its :class:`Verdict`."""

    lam: Lambda
    clean: int = Field(ge=0)
    robust: int = Field(ge=0, description="under the attack that is replayed from the twin: at most so many")
    square: int = Field(ge=0, description="under the Square attack on the artefact")


class Verdict(Section):
    """What ``floats-edge verify`` last found on one backend."""

    backend: Name
    library: Name = Field(description="what computed, and its version")
    images: int = Field(gt=0)
    attack: Attack
    queries: int = Field(gt=0, description="of the Square attack, per image")
    results: tuple[Withstood, ...] = Field(max_length=MOST_LAMBDAS, description="empty if the logits were no numbers")
    problems: tuple[Remark, ...] = Field(
        max_length=MOST_PROBLEMS, description="gates that were not passed; empty: it passed"
    )
    let_pass: bool = Field(
        default=False, description="not passed, and used all the same: verified with --allow-mismatch"
    )

    @property
    def refused(self) -> bool:
        """Whether the bundle is not opened on this backend."""
        return bool(self.problems) and not self.let_pass


class Calibration(Section):
    """Where the activation ranges of an int8 graph come from: training images, clean and attacked at each lambda."""

    method: CalibrationMethod
    images: int = Field(gt=0, description="different images, each of them clean and attacked at each lambda")
    lambdas: tuple[Lambda, ...] = Field(max_length=MOST_LAMBDAS)
    attack: Attack
    kept: LayerNames = Field(default=(), description="layers whose convolution is not quantised")
    kept_precision: KeptPrecision = Field(default="fp32", description="of these convolutions, weights and biases")
    reasons: dict[Name, Remark] = Field(
        default={}, max_length=MOST_LAYERS, description="why, by layer that is kept; what reports show"
    )

    @property
    def kept_in_fp16(self) -> tuple[str, ...]:
        """Layers that take their weights and biases in fp16."""
        return self.kept if self.kept_precision == "fp16" else ()

    @property
    def kept_by_reason(self) -> dict[str, list[str]]:
        """The layers that are kept, by why."""
        found: dict[str, list[str]] = {}
        for layer in self.kept:
            found.setdefault(self.reasons.get(layer, "not said"), []).append(layer)
        return found


class Golden(Section):
    """Real images and the fp32 logits of the trained network, or of an int8 graph: ``images``, ``logits_0``, ..."""

    file: FileName
    lambdas: Lambdas
    tolerance: float = Field(
        gt=0, le=LARGEST_TOLERANCE, description="allowed absolute logit error over the range of the golden logits"
    )


class Manifest(Section):
    """``manifest.json``."""

    schema_version: Literal[2] = SCHEMA_VERSION
    floats_edge_version: Name
    network: Name = Field(description="for people")
    input: InputSpec
    output: OutputSpec
    lam: LambdaSpec
    precision: Precision
    layers: tuple[LayerSpec, ...] = Field(min_length=1, max_length=MOST_LAYERS)
    graphs: tuple[Graph, ...] = Field(min_length=1, max_length=MOST_LAMBDAS)
    weights: FileName | None = Field(description="bound and refit: the affine weights, safetensors")
    engines: tuple[Engine, ...] = Field(default=(), max_length=MOST_ENGINES)
    golden: Golden
    parity: tuple[Parity, ...] = Field(max_length=MOST_LAMBDAS)
    mismatch: Remark | None = Field(
        default=None, description="what the gate had against the graphs, if they were let pass with --allow-mismatch"
    )
    verdicts: tuple[Verdict, ...] = Field(
        default=(), max_length=MOST_BACKENDS, description="of floats-edge verify, one of each backend"
    )
    calibration: Calibration | None = Field(default=None, description="int8 only")
    recipe: Recipe
    checkpoint_sha256: Name = Field(description="of the trained weights this bundle was made from")
    files: dict[FileName, FileEntry] = Field(max_length=MOST_FILES)

    @model_validator(mode="after")
    def _files_are_listed(self) -> Self:
        named = (*self._needed_files, *(engine.file for engine in self.engines))
        missing = [name for name in named if name not in self.files]
        if missing:
            raise ValueError(f"{', '.join(missing)} is used but not listed under files")
        return self

    @model_validator(mode="after")
    def _parts_fit_mode(self) -> Self:
        mode = self.lam.mode
        if (mode in WEIGHTS_APART) != (self.weights is not None):
            raise ValueError(f"mode {mode} does not go with weights {self.weights}")
        if Counter(graph.lam for graph in self.graphs) != Counter(self.lam.values or (None,)):
            raise ValueError(f"mode {mode} needs one graph for each lambda that it serves")
        return self

    @model_validator(mode="after")
    def _lambdas_are_served(self) -> Self:
        served = self.lam.values
        if served is not None and set(self.golden.lambdas) != set(served):
            raise ValueError(f"golden outputs for lambdas {self.golden.lambdas}, but {served} are served")
        wrong = [engine.file for engine in self.engines if engine.lam not in (served or (None,))]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is for a lambda that does not go with mode {self.lam.mode}")
        return self

    @model_validator(mode="after")
    def _a_batch_fits_in_memory(self) -> Self:
        image = max(math.prod(self.input.shape), len(self.output.labels))
        if image * max((engine.batch[2] for engine in self.engines), default=1) > LARGEST_TENSOR:
            raise ValueError("an engine's largest batch, or one image, is larger than any memory")
        return self

    @model_validator(mode="after")
    def _calibration_is_that_of_int8(self) -> Self:
        if self.precision == "int8" and self.lam.mode == "refit":
            raise ValueError("an int8 engine cannot be refitted")
        if (self.precision == "int8") != (self.calibration is not None):
            raise ValueError(f"precision {self.precision} does not go with calibration {self.calibration}")
        if self.calibration is None:
            return self
        unknown = set(self.calibration.kept) - {layer.name for layer in self.layers}
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is kept out of int8 and is no layer")
        return self

    @model_validator(mode="after")
    def _each_has_its_own(self) -> Self:
        for kind, owners in (
            ("a file", [graph.file for graph in self.graphs]),
            ("a file", [engine.file for engine in self.engines]),
            ("a backend", [verdict.backend for verdict in self.verdicts]),
        ):
            [(name, times)] = Counter(owners).most_common(1) or [("", 0)]
            if times > 1:
                raise ValueError(f"{name} is {kind} of {times}, and should be of one")
        return self

    @field_validator("layers")
    @classmethod
    def _layers_differ(cls, layers: tuple[LayerSpec, ...]) -> tuple[LayerSpec, ...]:
        if all(len(layer.shape) == 1 for layer in layers):
            raise ValueError("there is no convolution and no linear layer")
        [(name, times)] = Counter(layer.name for layer in layers).most_common(1)
        if times > 1:
            raise ValueError(f"layer {name} occurs {times} times")
        return layers

    @property
    def _needed_files(self) -> tuple[str, ...]:
        """What no bundle is without."""
        return *(graph.file for graph in self.graphs), self.golden.file, *([self.weights] if self.weights else [])

    @property
    def engine_files(self) -> frozenset[str]:
        """What can be built again from the rest of the bundle."""
        made = {name for engine in self.engines for name in engine.files if name in self.files}
        return frozenset(made.difference(self._needed_files))

    def without_files(self, lost: Set[str]) -> Self:
        """The manifest without some of its engine files, and without the engines that lose their plan with them."""
        kept = tuple(engine for engine in self.engines if engine.file not in lost)
        whole = self.model_copy(update={"engines": kept})
        gone = lost | (self.engine_files - whole.engine_files)
        return whole.model_copy(update={"files": {n: entry for n, entry in self.files.items() if n not in gone}})

    @property
    def let_pass(self) -> tuple[str, ...]:
        """What was found wrong with the graphs and the engines, and let pass with --allow-mismatch all the same."""
        engines = (f"{engine.file}: {engine.mismatch}" for engine in self.engines if engine.mismatch)
        verdicts = (f"{verdict.backend}: {' '.join(verdict.problems)}" for verdict in self.verdicts if verdict.let_pass)
        return tuple(filter(None, (self.mismatch, *engines, *verdicts)))

    def verdict(self, backend: str) -> Verdict | None:
        """What ``floats-edge verify`` last found on a backend; None: it was not run there."""
        return next((verdict for verdict in self.verdicts if verdict.backend == backend), None)

    def without_verdict(self, backend: str) -> Self:
        """The manifest after what it says of a backend no longer holds."""
        return self.model_copy(update={"verdicts": tuple(v for v in self.verdicts if v.backend != backend)})

    @property
    def density(self) -> float:
        """Share of the weights of training that are inside the masks and not removed; scales cannot be masked."""
        maskable = [layer for layer in self.layers if len(layer.shape) > 1]
        return sum(layer.nonzeros for layer in maskable) / sum(math.prod(layer.trained_shape) for layer in maskable)
