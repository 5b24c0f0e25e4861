"""The options of the baselines: values that recipes share. Imports no torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from floats_edge.method.fold import MOST_LAMBDAS

Encoding = Literal["none", "random-orthogonal", "dct", "onehot"]


class Oat(BaseModel):
    """How OAT is told lambda (Wang et al., NeurIPS 2020); the defaults are the published ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    encoding: Encoding = Field(
        default="random-orthogonal", description="what FiLM reads: lambda itself (none), or a row of a matrix for it"
    )
    dimensions: int = Field(default=128, gt=0, description="length of that row")
    batchnorm: Literal["dual", "single"] = Field(
        default="dual", description="one for clean and one for attacked images, or one for both"
    )
    without_film: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        default=("*.shortcut_norm", "norm"),
        max_length=64,
        description="BatchNorms, by name or pattern, that no FiLM follows: as published, those of projections and the "
        "last one of a wide ResNet",
    )
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


class PgdAt(BaseModel):
    """How PGD training weighs its two losses."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="weight of the loss of attacked images, against that of the same images clean; 1: none are trained "
        "clean; 0.5: the baseline that OAT is published with",
    )


class Trades(BaseModel):
    """How TRADES (Zhang et al., ICML 2019) weighs its two losses."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    beta: float = Field(
        default=6.0,
        gt=0,
        description="weight of how far the answers to attacked images are from those to clean ones; larger is more "
        "robust and less accurate",
    )
