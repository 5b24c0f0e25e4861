"""The recipe: every choice of a training run in one frozen, validated value."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from floats_edge.baselines.spec import Oat, PgdAt, Trades
from floats_edge.float32 import Float32
from floats_edge.method.fold import MOST_LAMBDAS, Rule
from floats_edge.networks.spec import NetworkSpec, NormalizedBy, Statistics, Word
from floats_edge.preprocessing import Preprocessing


def _fraction(value: Any) -> Any:
    """Accept ``8/255`` where a number is meant."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            return value
    return value


def _pixel_units(value: float) -> float:
    if value > 1:
        raise ValueError(f"{value:g} is probably in 8-bit units; images are in [0, 1], so write {value:g}/255")
    return value


Pixels = Annotated[float, Field(gt=0), BeforeValidator(_fraction), AfterValidator(_pixel_units)]
"""A distance between images in [0, 1]; a recipe may write ``8/255``."""

Lambda = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


def _trained_or_number(value: Any) -> Any:
    if value == "trained" or (type(value) in (int, float) and 0 <= value <= 1):
        return value
    raise ValueError(f"{value!r} is neither 'trained' nor a number in [0, 1]")


Method = Literal["float", "oat", "pgd-at", "trades", "standard"]

Noise = Literal["frozen", "resample"]
"""One draw of eta that stays, or a fresh one every time."""

TrainingNoise = Literal[Noise, "every-forward"]

Alpha = Annotated[Literal["trained"] | float, BeforeValidator(_trained_or_number)]
"""What scales the noise."""


def base_60(value: Any) -> Any:
    """YAML 1.1 reads an unquoted ``2:4`` as a number of base 60."""
    return "2:4" if value == 2 * 60 + 4 else value


Pattern = Annotated[Literal["irregular", "2:4", "channel"], BeforeValidator(base_60)]
"""Where the zeros of a mask may lie."""


def _yaml_off(value: Any) -> Any:
    """YAML 1.1 reads an unquoted ``off`` as false."""
    return "off" if value is False else value


Precision = Annotated[Literal["off", "bf16", "fp16"], BeforeValidator(_yaml_off)]
"""Of automatic mixed precision."""

Readers = dict[str, tuple[str, ...]]
READ_BY_METHOD: Readers = {
    "float": ("condition", "sparsity"),
    "oat": ("oat",),
    "pgd-at": ("pgd_at",),
    "trades": ("trades",),
    "standard": (),
}
"""Sections that only some methods read."""
READ_BY_PATTERN: Readers = {
    "irregular": ("density", "layer_densities", "update_every", "swap_rate"),
    "2:4": ("update_every", "swap_rate"),
    "channel": ("density", "multiple"),
}
"""Keys of ``sparsity`` that only some patterns read."""


def unread(reader: str, table: Readers) -> list[str]:
    """What only others than ``reader`` read; nothing if it is not in the table."""
    every = {key: None for keys in table.values() for key in keys}
    return [key for key in every if key not in table.get(reader, every)]


class Section(BaseModel):
    """Base of all parts of a recipe: immutable, strict about names, without NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def _refuse_unread(self, kind: str, reader: str, table: Readers) -> None:
        """Check that what ``reader``, a method or pattern, does not read was left at its default."""
        for key in unread(reader, table):
            default = type(self).model_fields[key].default
            if getattr(self, key) != default:
                others = " or ".join(other for other, keys in table.items() if key in keys)
                at = f" (-o {key}={{}})" if isinstance(default, BaseModel) else f" or at {default}"
                raise ValueError(f"{kind} {reader} does not read {key}: leave {key} out{at}, or choose {kind} {others}")


class Data(Section):
    """Which images, and how they are split and augmented."""

    dataset: Literal["digits", "cifar10", "cifar100", "svhn", "stl10", "imagenette", "folder", "given"] = Field(
        default="digits", description="which images; folder: your own; given: handed over in Python"
    )
    root: Path | None = Field(default=None, description="image folder, or where a data set is downloaded to")
    preprocessing: Preprocessing = Field(
        default=Preprocessing(), description="how an image becomes what the network takes"
    )
    validation: float = Field(default=0.1, gt=0, lt=1, description="share of the training images held out for choices")
    train_images: int | None = Field(
        default=None, gt=0, description="train on this many images, drawn at random; null: all"
    )
    crop: int = Field(default=2, ge=0, description="random crop after zero-padding by this many pixels")
    flip: bool = Field(default=False, description="random horizontal flip")
    resized_crop: tuple[Share, Share] | None = Field(
        default=None,
        description="in place of crop: a random part of this share of an image as it is stored, from 3:4 to 4:3, "
        "scaled; [0.08, 1] is usual for training from scratch, [0.5, 1] for fine-tuning",
    )
    jitter: float = Field(default=0.0, ge=0, le=1, description="random change of brightness, contrast and saturation")
    policy: Literal["none", "randaugment", "trivialaugment"] = Field(
        default="none", description="random changes of shape and colour, as torchvision has them"
    )
    mixup: float = Field(
        default=0.0,
        ge=0,
        description="blend pairs of images, and their classes, by a share of Beta(mixup, mixup); usual: 0.2; 0: off",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        description="paste a box of one image into another, its area drawn likewise; usual: 1; 0: off; if both are on, "
        "chance takes one of them for each batch",
    )
    statistics: NormalizedBy = Field(
        default="images",
        description="mean and deviation that images are normalised by: of the training images, or those that the "
        "published weights of a network of torchvision or timm expect, or numbers",
    )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0

    @model_validator(mode="after")
    def _statistics_fit_the_colours(self) -> Self:
        if self.statistics == "pretrained" and self.preprocessing.colours not in (None, "rgb"):
            raise ValueError(f"statistics: pretrained are those of colours: rgb, not {self.preprocessing.colours}")
        if isinstance(self.statistics, Statistics) and self.preprocessing.colours is not None:
            channels = 1 if self.preprocessing.colours == "grey" else 3
            if len(self.statistics.mean) != channels:
                raise ValueError(
                    f"statistics of {len(self.statistics.mean)} channels are not those of colours: "
                    f"{self.preprocessing.colours}, which has {channels}"
                )
        return self

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.resized_crop is None:
            return self
        if self.crop != 0:
            raise ValueError("resized_crop stands in for crop: set data.crop=0")
        if self.resized_crop[0] > self.resized_crop[1]:
            raise ValueError(f"resized_crop goes from the smaller share to the larger, not {self.resized_crop}")
        return self


class Condition(Section):
    """How lambda conditions the weights: W(lam) = m * (theta + lam * alpha * sigma * eta)."""

    noise: TrainingNoise = Field(
        default="frozen",
        description="which draw of eta is trained; frozen: the one that is deployed; resample: a fresh one for every "
        "step of training; every-forward: a fresh one whenever the network is run with noise, in every step of an "
        "attack too",
    )
    noise_seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the frozen noise eta")
    alpha: Alpha = Field(
        default="trained",
        description="scale of the noise; trained: one for each layer; or a number from 0 to 1 that stays; 0: no noise, "
        "lambda moves BatchNorm only",
    )
    initial_alpha: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="every alpha at first, where it is trained; at most 0.02 for pretrained weights",
    )
    exclude: tuple[Word, ...] = Field(
        default=(), max_length=1024, description="layers, or modules around them, that lambda leaves alone"
    )
    rule: Rule = Field(
        default="interpolate",
        description="how a lambda between 0 and 1 is served; interpolate: weights move evenly from one end to the "
        "other; paper: BatchNorm is that of lambda 1 as soon as lambda is above 0",
    )
    clean_images: Literal["half", "all"] = Field(
        default="half",
        description="images of a batch that are trained clean; all: those to be attacked too, without noise, "
        "normalised by the adversarial BatchNorm",
    )


class Sparsity(Section):
    """Which weights FLOATS masks."""

    pattern: Pattern = Field(
        default="irregular",
        description="where zeros lie; irregular: anywhere; 2:4: two of every four consecutive input channels, for "
        "sparse tensor cores; channel: whole channels, which the export removes",
    )
    density: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="irregular: share of active weights over all layers; channel: share of the channels kept in the "
        "residual stream of every stage and inside every block",
    )
    multiple: int = Field(default=8, gt=0, description="channel: the kept number is rounded up to a multiple of this")
    layer_densities: Literal["erk", "uniform", "importance"] = Field(
        default="erk",
        description="irregular: how layers share the density; erk: large layers get less; importance: anew at every "
        "update",
    )
    update_every: float = Field(default=0.5, gt=0, description="irregular, 2:4: epochs between mask updates")
    swap_rate: float = Field(
        default=0.3, ge=0, lt=1, description="irregular, 2:4: share of active weights swapped at the first update"
    )

    @model_validator(mode="after")
    def _keys_fit_the_pattern(self) -> Self:
        self._refuse_unread("pattern", self.pattern, READ_BY_PATTERN)
        if self.pattern == "channel" and self.density == 1:
            raise ValueError("pattern channel needs a density below 1: the share of the channels that are kept")
        return self

    @property
    def title(self) -> str:
        """The masks, for people."""
        if self.dense:
            return "dense"
        if self.pattern == "channel":
            return f"channel, density {self.density:g}, multiples of {self.multiple}"
        return "2:4" if self.pattern == "2:4" else f"irregular, density {self.density:g}, {self.layer_densities}"

    @property
    def dense(self) -> bool:
        """Whether no weight is masked."""
        return self.pattern == "irregular" and self.density == 1


class Attack(Section):
    """An L-infinity attack on images in [0, 1]."""

    kind: Literal["pgd", "fgsm-rs", "n-fgsm", "autoattack"] = Field(
        description="how images are attacked; autoattack: for evaluate.attack only; it chooses its own steps"
    )
    epsilon: Pixels = Field(description="how far a pixel in [0, 1] may be moved, such as 8/255")
    step: Pixels | None = Field(
        None, description="step size; null: epsilon/4 (pgd), 1.25 epsilon (fgsm-rs), epsilon (n-fgsm)"
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        validate_default=True,
        description="gradient steps of pgd, which has no default; usual: 7 to train, 20 to evaluate",
    )
    restarts: int = Field(default=1, ge=1, description="random restarts of pgd, of which the worst counts")
    loss: Literal["cross-entropy", "margin"] = Field(
        default="cross-entropy",
        description="what is climbed; margin: the lead of another class over the true one, for evaluation only",
    )

    @field_validator("steps")
    @classmethod
    def _steps_of_pgd(cls, steps: int | None, others: ValidationInfo) -> int | None:
        if others.data.get("kind") == "pgd":
            if steps is None:
                raise ValueError("pgd needs a number of steps; usual are 7 to train and 20 to evaluate")
            return steps
        return None if steps == 1 else steps  # 1 was the default, and stands in older runs and bundles

    @model_validator(mode="after")
    def _single_step(self) -> Self:
        if self.kind != "pgd" and (self.steps, self.restarts, self.loss) != (None, 1, "cross-entropy"):
            raise ValueError(f"{self.kind} takes no steps, restarts or loss; use kind: pgd for them")
        return self


class TrainingAttack(Attack):
    """An attack that every step of training can afford."""

    # A section is frozen, so that its types may be narrowed; pyright does not see it.
    kind: Literal["pgd", "fgsm-rs", "n-fgsm"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        description="how images are attacked; evaluate.attack may be autoattack, too"
    )
    loss: Literal["cross-entropy"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="cross-entropy", description="what is climbed; evaluate.attack may climb margin, too"
    )


class Train(Section):
    """SGD with Nesterov momentum, or AdamW; linear warm-up, cosine decay."""

    epochs: int = Field(default=20, ge=1, description="passes over the training images")
    batch_size: int = Field(
        default=64,
        ge=4,
        multiple_of=2,
        description="images of a step, an even number; float: half of it is trained clean, half attacked",
    )
    lr: float = Field(default=0.1, gt=0, description="learning rate at its highest, after warm-up")
    warmup: float = Field(default=0.2, ge=0, lt=1, description="share of the run spent warming up")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="what updates the weights")
    momentum: float = Field(default=0.9, gt=0, lt=1, description="momentum of SGD, first beta of AdamW")
    weight_decay: float = Field(default=5e-4, ge=0, description="how strongly weights are drawn to 0")
    decayed: Literal["weights", "all"] = Field(
        default="weights", description="what weight decay applies to; all: biases, alpha and BatchNorm too"
    )
    frozen: tuple[Word, ...] = Field(
        default=(), max_length=1024, description="modules that stay as they are, such as features.0"
    )
    balance: Literal["none", "weights", "sampler"] = Field(
        default="none",
        description="where classes have unequally many images; weights: the loss of an image counts inversely to the "
        "training images of its class; sampler: images are drawn with replacement, every class as often",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of every target that all classes have alike; attacks keep to the sharp one",
    )
    overfitting: Literal["warn", "pgd"] = Field(
        default="warn", description="when a single-step attack overfits catastrophically: say so, or go on with PGD-7"
    )
    amp: Precision = Field(default="off", description="automatic mixed precision, of attack and update; for GPUs")
    float32: Float32 = Field(
        default="tf32",
        description="products of float32 in attack and update on a GPU; what is checked, evaluated or exported is ieee",
    )
    compile: bool = Field(default=False, description="compile the network by torch.compile; for GPUs")
    cuda_graphs: bool = Field(
        default=False,
        description="launch each pass of the network as CUDA graphs; for GPUs, not with compile or method oat",
    )
    deterministic: bool = Field(
        default=False, description="algorithms that give the same bits in every run on one GPU; CPUs do anyway"
    )

    @model_validator(mode="after")
    def _compiled_or_recorded(self) -> Self:
        if self.compile and self.cuda_graphs:
            raise ValueError("compile and cuda_graphs exclude each other; choose one")
        return self


class Evaluate(Section):
    """How the result is judged, on test images."""

    lambdas: tuple[Lambda, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0),
        min_length=1,
        max_length=MOST_LAMBDAS,
        description="where accuracy is measured",
    )
    attack: Attack
    images: int | None = Field(default=None, gt=0, description="test images to use; null: all")


class Recipe(Section):
    """Everything a run depends on: two runs of one recipe on one machine give the same bits."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=256, description="of the recipe, and of its folder in runs/"
    )
    method: Method = Field(default="float", description="how the network is trained; standard: on clean images alone")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of every random choice of a training but the noise")
    data: Data = Data()
    model: NetworkSpec = NetworkSpec(name="resnet8")
    condition: Condition = Condition()
    oat: Oat = Oat()
    pgd_at: PgdAt = PgdAt()
    trades: Trades = Trades()
    sparsity: Sparsity = Sparsity()
    attack: TrainingAttack
    train: Train = Train()
    evaluate: Evaluate

    @model_validator(mode="after")
    def _sections_fit_the_method(self) -> Self:
        self._refuse_unread("method", self.method, READ_BY_METHOD)
        if self.method == "oat" and self.train.cuda_graphs:
            raise ValueError("train.cuda_graphs is for folded networks, and OAT's do not fold; leave it out")
        served = self.oat.served if self.method == "oat" else None
        if served is not None and not set(self.evaluate.lambdas) <= set(served):
            known = ", ".join(f"{lam:g}" for lam in served)
            raise ValueError(f"evaluate.lambdas holds a lambda that OAT's encoding does not know; it knows {known}")
        return self


def read_by_training(recipe: Recipe) -> dict[str, Any]:
    """The choices on which training depends, by section: not the name, nor where images are, nor how it is judged."""
    return recipe.model_dump(exclude={"name": True, "evaluate": True, "data": {"root"}})
