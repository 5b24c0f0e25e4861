"""The graph of a network in each lambda mode at each precision: which passes, in which order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx

from floats_edge.artifacts.manifest import Calibration, Mode, Precision
from floats_edge.deploy import onnx_graph
from floats_edge.deploy.int8_rule import Int8Rule, int8_rule
from floats_edge.deploy.quantize import Array, quantize, weight_scales
from floats_edge.method.fold import AffineLayer, Weights, affine_in_lambda, clean_weights, end_weights, weights_at


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network as graphs are made from it.

    Attributes:
        template: a float32 graph whose weights are initializers or inputs.
        layers: its weights at any lambda.
    """

    template: onnx.ModelProto
    layers: Mapping[str, AffineLayer]

    def weights_at(self, lam: float | None) -> Weights:
        """The weights at ``lam``; those a graph for any lambda starts with if that is None."""
        return clean_weights(self.layers) if lam is None else weights_at(self.layers, lam)

    def constant(self, lam: float | None) -> onnx.ModelProto:
        """The float32 graph at ``lam``."""
        return onnx_graph.with_weights(self.template, self.weights_at(lam))

    @cached_property
    def int8(self) -> Int8Rule:
        """What int8 quantises."""
        return int8_rule(self.template, self.layers)

    @property
    def quantisable(self) -> tuple[str, ...]:
        """The layers that int8 quantises: convolutions, in the order of the graph."""
        return tuple(self.int8.quantised)

    def scales(self, lam: float | None, kept: Collection[str] = ()) -> dict[str, Array]:
        """Scales of int8 weights that hold at ``lam``, at any lambda if that is None; none of layers ``kept``."""
        ends = end_weights(self.layers) if lam is None else (self.weights_at(lam),)
        return weight_scales(ends, [f"{layer}.weight" for layer in self.quantisable if layer not in kept])

    def quantised(
        self, model: onnx.ModelProto, ranges: Mapping[str, float], scales: Mapping[str, Array]
    ) -> onnx.ModelProto:
        """A float32 graph of this network with the convolutions in int8 whose weights have ``scales``."""
        return quantize(model, self.int8.shortcuts, ranges, scales)

    def graph(
        self,
        mode: Mode,
        lam: float | None,
        precision: Precision,
        ranges: Mapping[str, float],
        calibration: Calibration | None = None,
    ) -> onnx.ModelProto:
        """The graph to deploy.

        Args:
            mode: of the bundle.
            lam: the lambda it serves, None for any.
            precision: of the graph.
            ranges: int8 only: of the activations.
            calibration: int8 only: which layers are kept out of it, and in which precision; None: none.
        """
        model = self.constant(lam)
        if mode == "input":
            affine = affine_in_lambda(self.layers)
            model = onnx_graph.with_lambda_input(model, clean_weights(self.layers), affine)
        if precision == "int8":
            kept, halves = (calibration.kept, calibration.kept_in_fp16) if calibration else ((), ())
            model = onnx_graph.convolve_in_fp16(self.quantised(model, ranges, self.scales(lam, kept)), halves)
        elif precision == "fp16":
            model = onnx_graph.to_fp16(model)
        elif precision == "bf16":
            model = onnx_graph.to_bf16(model)
        if mode == "bound":
            model = onnx_graph.with_weight_inputs(model, list(self.weights_at(lam)))
        return model
