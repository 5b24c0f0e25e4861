"""What must be known to build a network: a value that recipes, checkpoints and bundles share. Imports no torch."""

import operator
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from typing_extensions import Self

Architecture = Literal["resnet8", "resnet14", "resnet20", "resnet18", "resnet34", "wrn-16-8", "wrn-40-2"]
Method = Literal["float", "oat", "pgd-at", "standard"]
Encoding = Literal["none", "random-orthogonal", "dct", "onehot"]

MOST_LAMBDAS = 256
"""In one list."""
DEPTHS: dict[str, tuple[int, ...]] = {
    "resnet8": (1, 1, 1),
    "resnet14": (2, 2, 2),
    "resnet20": (3, 3, 3),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
}
"""Blocks of each stage of a ResNet."""
WIDE: dict[str, tuple[tuple[int, ...], int]] = {"wrn-16-8": ((2, 2, 2), 8), "wrn-40-2": ((6, 6, 6), 2)}
"""Blocks of each stage of a wide ResNet, and its widening factor."""


class Widths(BaseModel):
    """How many channels a residual network has where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    streams: tuple[PositiveInt, ...] = Field(
        max_length=1024, description="in the residual stream of each stage; of a wide ResNet, of its stem before them"
    )
    inner: tuple[PositiveInt, ...] = Field(max_length=1024, description="between the two convolutions of each block")

    def __str__(self) -> str:
        return f"{_runs(self.streams)}, inside blocks {_runs(self.inner)}"


def _runs(widths: tuple[int, ...]) -> str:
    """``64, 64, 128`` as ``2×64, 128``."""
    counted = ((width, len(list(equal))) for width, equal in groupby(widths))
    return ", ".join(f"{width}" if count == 1 else f"{count}×{width}" for width, count in counted)


class ModelSpec(BaseModel):
    """Topology of a network and the input it takes: images ``[N, C, H, W]``, float32 in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    arch: Architecture
    width: int = Field(
        gt=0,
        le=2**16,
        description="channels of the first stage; of a wide ResNet, of its stem: 16 in the published ones",
    )
    stem_stride: Literal[1, 2]
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(description="(C, H, W) of one image")
    classes: int = Field(gt=1)
    mean: tuple[float, ...] = Field(
        max_length=1024, description="per channel, subtracted from the images inside the network"
    )
    std: tuple[float, ...] = Field(max_length=1024, description="per channel, divides the images inside the network")
    widths: Widths | None = Field(
        default=None, description="where channels were removed, what is left; None: the architecture's own"
    )

    @model_validator(mode="after")
    def _statistics_match(self) -> Self:
        if not len(self.mean) == len(self.std) == self.image_shape[0] or min(self.std) <= 0:
            raise ValueError("mean and std need one entry per channel, std positive")
        return self

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.widths is None:
            return self
        own = own_widths(self.arch, self.width)
        pairs = ((self.widths.streams, own.streams), (self.widths.inner, own.inner))
        if any(len(left) != len(whole) or any(map(operator.gt, left, whole)) for left, whole in pairs):
            raise ValueError(f"widths do not fit {self.arch} of width {self.width}, which has {own}")
        return self

    @property
    def title(self) -> str:
        """Architecture and width, for people."""
        narrowed = "" if self.widths is None else f", narrowed to {self.widths}"
        return f"{self.arch}, width {self.width}{narrowed}"


def own_widths(arch: str, width: int) -> Widths:
    """The widths of a network of which no channel was removed: each later stage doubles them."""
    depths, factor = WIDE[arch] if arch in WIDE else (DEPTHS[arch], 1)
    stages = tuple(width * factor * 2**stage for stage in range(len(depths)))
    inner = tuple(channels for channels, depth in zip(stages, depths, strict=True) for _ in range(depth))
    return Widths(streams=(width, *stages) if arch in WIDE else stages, inner=inner)


class Place(NamedTuple):
    """Where a block stands: which residual streams it reads and writes, counted as in :class:`Widths`.

    Where these are not the same, the shortcut is a projection.
    """

    source: int
    target: int
    stride: int


def places(arch: str) -> Iterator[Place]:
    """Those of the blocks of a network, in order."""
    depths, before = (WIDE[arch][0], 1) if arch in WIDE else (DEPTHS[arch], 0)
    for stage, depth in enumerate(depths):
        for position in range(depth):
            target, first = stage + before, position == 0
            yield Place(target - 1 if first and target else target, target, stride=2 if first and stage else 1)


class Oat(BaseModel):
    """How OAT is told lambda (Wang et al., NeurIPS 2020); the defaults are the published ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    encoding: Encoding = Field(
        default="random-orthogonal", description="what FiLM reads: lambda itself (none), or a row of a matrix for it"
    )
    dimensions: int = Field(default=128, gt=0, description="length of that row")
    batchnorm: Literal["dual", "single"] = "dual"
    lambdas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 1.0),
        max_length=MOST_LAMBDAS,
        description="the lambdas that training samples, 0 and 1 among them",
    )

    @model_validator(mode="after")
    def _lambdas_can_be_told_apart(self) -> Self:
        if len(set(self.lambdas)) < len(self.lambdas):
            raise ValueError("a lambda occurs twice")
        if not {0, 1} <= set(self.lambdas):
            raise ValueError("0 and 1 are needed: every epoch is checked there")
        if self.encoding != "none" and len(self.lambdas) > self.dimensions:
            raise ValueError(f"{len(self.lambdas)} lambdas need as many dimensions, not {self.dimensions}")
        return self

    @property
    def served(self) -> tuple[float, ...] | None:
        """The lambdas that a trained network takes: an encoding knows no others; None for any in [0, 1]."""
        return None if self.encoding == "none" else self.lambdas
