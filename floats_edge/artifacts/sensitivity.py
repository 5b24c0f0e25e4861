"""``sensitivity.json``: what quantising each layer of a network alone to int8 costs."""

from typing import Literal

from pydantic import Field

from floats_edge.recipe import Lambda, Section

SENSITIVITY = "sensitivity.json"
"""The report's name in a bundle."""


class Cost(Section):
    """How far a quantised network is from the float32 one at one lambda; errors as in the manifest's parity."""

    lam: Lambda
    top1_agreement: float = Field(description="share of images with the same first class")
    p50_error: float = Field(description="median over the images of the largest absolute logit error, over the range")
    p99_error: float = Field(description="99th percentile of the same")
    max_error: float = Field(description="largest of the same")


class LayerCost(Section):
    """Of the network in which this layer alone is int8."""

    layer: str
    costs: tuple[Cost, ...] = Field(min_length=1, description="at each lambda")

    @property
    def p99_error(self) -> float:
        """The 99th percentile of the logit error at the lambda where it is largest."""
        return max(cost.p99_error for cost in self.costs)


class Sensitivity(Section):
    """The report, as it lies in the bundle."""

    kind: Literal["sensitivity"] = "sensitivity"
    schema_version: Literal[1] = 1
    images: int = Field(gt=0, description="clean validation images; neither training nor test images")
    layers: tuple[LayerCost, ...] = Field(description="the most costly first, by the largest p99_error over lambda")
    together: tuple[Cost, ...] = Field(min_length=1, description="all of these layers int8 at once")
