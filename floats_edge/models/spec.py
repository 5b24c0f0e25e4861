"""What must be known to build a network: a value that recipes, checkpoints and bundles share. Imports no torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from typing_extensions import Self

Architecture = Literal["resnet8", "resnet14", "resnet20", "resnet18", "resnet34", "wrn-16-8", "wrn-40-2"]
Method = Literal["float", "oat", "pgd-at", "standard"]
Encoding = Literal["none", "random-orthogonal", "dct", "onehot"]


class ModelSpec(BaseModel):
    """Topology of a network and the input it takes: images ``[N, C, H, W]``, float32 in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    arch: Architecture
    width: int = Field(
        gt=0, description="channels of the first stage; of a wide ResNet, of its stem: 16 in the published ones"
    )
    stem_stride: Literal[1, 2]
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(description="(C, H, W) of one image")
    classes: int = Field(gt=1)
    mean: tuple[float, ...] = Field(description="per channel, subtracted from the images inside the network")
    std: tuple[float, ...] = Field(description="per channel, divides the images inside the network")

    @model_validator(mode="after")
    def _statistics_match(self) -> Self:
        if not len(self.mean) == len(self.std) == self.image_shape[0] or min(self.std) <= 0:
            raise ValueError("mean and std need one entry per channel, std positive")
        return self


class Oat(BaseModel):
    """How OAT is told lambda (Wang et al., NeurIPS 2020); the defaults are the published ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    encoding: Encoding = Field(
        default="random-orthogonal", description="what FiLM reads: lambda itself (none), or a row of a matrix for it"
    )
    dimensions: int = Field(default=128, gt=0, description="length of that row")
    batchnorm: Literal["dual", "single"] = "dual"
    lambdas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 1.0), description="the lambdas that training samples, 0 and 1 among them"
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
