"""Which layers lose most when they become int8: each is quantised alone and compared with the float32 network."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from floats_edge.artifacts.sensitivity import Cost, LayerCost, Sensitivity
from floats_edge.deploy.lambda_graph import Network
from floats_edge.deploy.quantize import Array
from floats_edge.evaluation.batch import LARGEST_BATCH
from floats_edge.evaluation.parity import logit_errors, top1_agreement
from floats_edge.runtime.base import Images, Logits

ScalesAt = Callable[[float], Mapping[str, Array]]
"""The scales of the int8 weights in force at a lambda, by the name of the weight."""


def measure_sensitivity(
    network: Network,
    ranges: Mapping[str, float],
    scales_at: ScalesAt,
    images: Images,
    lambdas: Sequence[float],
    batch: int = LARGEST_BATCH,
) -> Sensitivity:
    """Compare the network with one layer in int8, for each layer, with the float32 network on ONNX Runtime's CPU.

    An addition is quantised with the convolution that takes it along. The graphs are those of mode ``fixed``. With
    scales for every lambda they compute what the other modes do.

    Args:
        network: the float32 network.
        ranges: of the activations, from :func:`floats_edge.deploy.quantize.calibrate`.
        scales_at: of the weights.
        images: float32 ``[N, C, H, W]`` in [0, 1], neither calibrated on nor test images.
        lambdas: at which to compare.
        batch: images at a time.
    """
    alone: dict[str, list[Cost]] = {layer: [] for layer in network.quantisable}
    together: list[Cost] = []
    for lam in lambdas:
        model, scales = network.constant(lam), scales_at(lam)
        wanted = _logits(model, images, batch)
        for layer, costs in alone.items():
            weight = f"{layer}.weight"
            quantised = network.quantised(model, ranges, {weight: scales[weight]})
            costs.append(_cost(lam, _logits(quantised, images, batch), wanted))
        together.append(_cost(lam, _logits(network.quantised(model, ranges, scales), images, batch), wanted))
    layers = [LayerCost(layer=layer, costs=tuple(costs)) for layer, costs in alone.items()]
    layers.sort(key=lambda cost: cost.p99_error, reverse=True)
    return Sensitivity(images=len(images), layers=tuple(layers), together=tuple(together))


def _cost(lam: float, got: Logits, wanted: Logits) -> Cost:
    errors = logit_errors(got, wanted)
    p50, p99 = np.percentile(errors, (50, 99))
    return Cost(
        lam=lam,
        top1_agreement=top1_agreement(got, wanted),
        p50_error=float(p50),
        p99_error=float(p99),
        max_error=float(errors.max()),
    )


def _logits(model: onnx.ModelProto, images: Images, batch: int) -> Logits:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = model.graph.input[0].name
    batches = (images[start : start + batch] for start in range(0, len(images), batch))
    return np.concatenate([np.asarray(session.run(None, {name: some})[0]) for some in batches])
