"""Which network, and which images it takes: values that recipes and checkpoints share. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

from floats_edge.preprocessing import ResolvedPreprocessing, Shape

if TYPE_CHECKING:
    from torch import nn

Source = Literal["builtin", "torchvision", "timm", "python", "given"]
"""given: a module that was handed over in Python, and is so again to every stage that needs it."""
Word = Annotated[str, Field(max_length=256)]
Scalar = bool | int | float | Word | None
Argument = Scalar | Annotated[list[Scalar], Field(max_length=64)]


class NetworkSpec(BaseModel):
    """Which network, and the weights that it starts from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: Source = Field(
        default="builtin", description="where the network comes from; builtin: ours; given: handed over in Python"
    )
    name: Word = Field(description="of the network in its source; python: package.module:function")
    arguments: dict[Word, Argument] = Field(
        default={}, max_length=64, description="what the network is built with, such as {width: 32}"
    )
    weights: Path | None = Field(
        default=None, description="file of pretrained tensors, safetensors or a state dict of torch; null: random ones"
    )

    @model_validator(mode="after")
    def _python_names_a_function(self) -> Self:
        module, colon, function = self.name.partition(":")
        if self.source == "python" and not (colon and _is_dotted(module) and _is_dotted(function)):
            raise ValueError(f"python code is named package.module:function, not {self.name!r}")
        return self

    @property
    def title(self) -> str:
        """The network and its arguments, for people."""
        origin = "" if self.source == "builtin" else f"{self.source} "
        return ", ".join((f"{origin}{self.name}", *(f"{key} {value}" for key, value in self.arguments.items())))


@dataclass(frozen=True, eq=False)
class Code:
    """Code of the user's: no recipe, run or bundle can make it run by itself.

    Attributes:
        allowed: whether what the source ``python`` names may be imported and run.
        module: what the source ``given`` stands for; it is copied, and stays as it is.
    """

    allowed: bool = False
    module: "nn.Module | None" = None


NO_CODE = Code()


class Statistics(BaseModel):
    """Mean and standard deviation that images are normalised by, per channel in their order, of pixels in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1, max_length=3)
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(min_length=1, max_length=3)


def _normalized_by(value: Any) -> Any:
    """Let words pass, and numbers that can be mean and deviation; an error names the whole."""
    if value in ("images", "pretrained") or isinstance(value, Statistics):
        return value
    if not isinstance(value, dict) or set(value) != {"mean", "std"}:
        raise ValueError(f"{value!r} is neither images nor pretrained nor {{mean: [...], std: [...]}}")
    mean, std = value["mean"], value["std"]
    for numbers in (mean, std):
        if not isinstance(numbers, list | tuple) or any(type(number) not in (int, float) for number in numbers):
            raise ValueError(f"{numbers!r} is no list of numbers")
    if len(mean) != len(std) or len(mean) not in (1, 3):
        raise ValueError(
            f"mean and std have a number for each channel, of which images have 1 or 3, not {len(mean)} and {len(std)}"
        )
    if not all(0 <= number <= 1 for number in mean) or not all(0 < number <= 1 for number in std):
        raise ValueError(
            f"pixels are in [0, 1], so a mean is from 0 to 1 and a deviation above 0 and up to 1, not {list(mean)} and "
            f"{list(std)}: divide 8-bit units by 255"
        )
    return value


NormalizedBy = Annotated[Literal["images", "pretrained"] | Statistics, BeforeValidator(_normalized_by)]
"""Statistics, or whose they are."""


class ImageSpec(BaseModel):
    """The images a network takes: ``[N, C, H, W]``, float32 in [0, 1], normalised inside the network."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    preprocessing: ResolvedPreprocessing = Field(description="how an image becomes what the network takes")
    mean: tuple[float, ...] = Field(description="per channel, subtracted from the images inside the network")
    std: tuple[float, ...] = Field(description="per channel, divides the images inside the network")

    @property
    def shape(self) -> Shape:
        """``(C, H, W)`` of one image."""
        return self.preprocessing.shape

    @model_validator(mode="after")
    def _statistics_match(self) -> Self:
        if not len(self.mean) == len(self.std) == self.shape[0] or min(self.std) <= 0:
            raise ValueError("mean and std need one entry per channel, std positive")
        return self


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
