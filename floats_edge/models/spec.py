"""What must be known to build a network: a value that recipes, checkpoints and bundles share. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from typing_extensions import Self

Architecture = Literal["resnet8", "resnet14", "resnet20", "resnet18", "resnet34"]


class ModelSpec(BaseModel):
    """Topology of a network and the input it takes: images ``[N, C, H, W]``, float32 in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    arch: Architecture
    width: int = Field(gt=0, description="channels of the first stage")
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
