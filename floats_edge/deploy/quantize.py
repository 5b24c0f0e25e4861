"""INT8 by explicit quantisation (Q/DQ): the inputs and weights of convolutions, with scales valid at every lambda.

ONNX Runtime's own ``quantize_static`` cannot be used: it wants constant weights, and one set of them. The graphs are
those it would write with per-channel symmetric int8 and float biases. Zero points are 0, as TensorRT demands.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from floats_edge.artifacts.manifest import CalibrationMethod
from floats_edge.errors import DataError
from floats_edge.method.fold import Weights
from floats_edge.runtime.base import Images
from floats_edge.runtime.lambda_weights import quantized

MIN_IMAGES = 500
PERCENTILE = 99.99
_BINS = 2048
_LEVELS = 127
"""Steps of an int8 range on either side of zero."""

Array = NDArray[np.float32]
ModelAt = Callable[[float], onnx.ModelProto]
"""The network at one lambda, its weights constants."""


def weight_scales(ends: Iterable[Weights], names: Iterable[str]) -> dict[str, Array]:
    """Scale per output channel that fits weights at all of ``ends``: float32 ``[out]`` by name.

    Given :func:`floats_edge.method.fold.end_weights`, the scales fit at every lambda in [0, 1].
    """
    scales: dict[str, Array] = {}
    sets = list(ends)
    for name in names:
        largest = np.max(
            [np.abs(weights[name]).reshape(len(weights[name]), -1).max(axis=1) for weights in sets], axis=0
        )
        scales[name] = np.where(largest > 0, largest / _LEVELS, 1).astype(np.float32)
    return scales


def conv_weights(model: onnx.ModelProto) -> list[str]:
    """Names of the weights that can be quantised: those of the convolutions. The classifier stays float."""
    return [node.input[1] for node in model.graph.node if node.op_type == "Conv"]


def conv_inputs(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors that the convolutions read, each once: those that have a range."""
    return list(dict.fromkeys(node.input[0] for node in model.graph.node if node.op_type == "Conv"))


def calibrate(
    model_at: ModelAt, images: Mapping[float, Iterable[Images]], method: CalibrationMethod
) -> dict[str, float]:
    """Largest magnitude that the input of each convolution is to represent, by tensor name.

    Args:
        model_at: the float32 network at each lambda of ``images``.
        images: by lambda, batches of float32 ``[n, C, H, W]`` in [0, 1], which are iterated over once or twice: at
            least :data:`MIN_IMAGES`, from the evaluation's loader but never its test images, clean and attacked at
            that lambda.
        method: ``minmax`` keeps the largest value, ``percentile`` 99.99 % of the values, ``entropy`` what loses least
            information (Migacz, GTC 2017, S7310). The images' own range is always kept whole.

    Raises:
        DataError: too few images, or of another shape than the network takes.
    """
    largest: dict[str, float] = {}
    for name, values in _conv_input_values(model_at, images):
        largest[name] = max(largest.get(name, 0.0), float(np.abs(values).max()))
    if method == "minmax":
        return largest
    counts = {name: np.zeros(_BINS, dtype=np.int64) for name in largest}
    for name, values in _conv_input_values(model_at, images):
        counts[name] += np.histogram(np.abs(values), _BINS, range=(0, largest[name] or 1))[0]
    edge_of = _percentile_edge if method == "percentile" else _entropy_edge
    edges = {name: edge_of(count) for name, count in counts.items()}
    edges[next(iter(edges))] = _BINS  # the stem's: pixels fill their range, and clipping black or white ruins an image
    return {name: largest[name] * edge / _BINS for name, edge in edges.items()}


def quantize(model: onnx.ModelProto, ranges: Mapping[str, float], scales: Mapping[str, Array]) -> onnx.ModelProto:
    """Quantise the inputs and weights of those convolutions of a float32 graph whose weights have scales.

    Constant weights become int8 constants; weights computed in the graph are quantised there. The others stay as they
    are.

    Args:
        model: the graph.
        ranges: of the convolutions' inputs, from :func:`calibrate`.
        scales: of the weights to be quantised, from :func:`weight_scales`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in scales:
            source, weight = node.input[:2]
            if source not in done:
                scale = np.float32(max(ranges[source], np.finfo(np.float32).tiny * _LEVELS) / _LEVELS)
                nodes += _quantizer(graph, source, scale), _dequantizer(f"{source}.int8", source)
                done.add(source)
            if weight in constants:
                array = quantized(numpy_helper.to_array(constants[weight]), scales[weight])
                constants[weight].CopyFrom(numpy_helper.from_array(array, weight))
                _add_scale(graph, weight, scales[weight])
                nodes.append(_dequantizer(weight, weight))
            else:
                nodes += _quantizer(graph, weight, scales[weight]), _dequantizer(f"{weight}.int8", weight)
            node = onnx.NodeProto.FromString(node.SerializeToString())
            node.input[0], node.input[1] = f"{source}.dequantized", f"{weight}.dequantized"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _add_scale(graph: onnx.GraphProto, name: str, scale: Array | np.float32) -> None:
    zero = np.zeros(np.shape(scale), dtype=np.int8)
    graph.initializer.append(numpy_helper.from_array(np.asarray(scale), f"{name}.scale"))
    graph.initializer.append(numpy_helper.from_array(zero, f"{name}.zero"))


def _quantizer(graph: onnx.GraphProto, name: str, scale: Array | np.float32) -> onnx.NodeProto:
    _add_scale(graph, name, scale)
    return helper.make_node("QuantizeLinear", [name, f"{name}.scale", f"{name}.zero"], [f"{name}.int8"], axis=0)


def _dequantizer(source: str, name: str) -> onnx.NodeProto:
    inputs = [source, f"{name}.scale", f"{name}.zero"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], axis=0)


def _checked(model: onnx.ModelProto, batches: Iterable[Images]) -> Iterator[Images]:
    """The batches, each of the right shape and type, and enough of them."""
    count = 0
    for images in batches:
        _check_shape(model, images)
        count += len(images)
        yield images
    if count < MIN_IMAGES:
        raise DataError(
            f"{count} images are too few to calibrate on: the ranges would miss what others hold.",
            fix=f"use a data set with at least {MIN_IMAGES} training images, or another --precision than int8",
        )


def _check_shape(model: onnx.ModelProto, images: Images) -> None:
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    if images.dtype != np.float32 or images.shape[1:] != shape:
        raise DataError(
            f"the network takes float32 images of shape {list(shape)}; those to calibrate on are {images.dtype} "
            f"{list(images.shape[1:])}.",
            fix="calibrate on images of the data set that the network was trained on",
        )


def _conv_input_values(model_at: ModelAt, images: Mapping[float, Iterable[Images]]) -> Iterator[tuple[str, Array]]:
    """Name and values of the input of every convolution, batch by batch."""
    import onnxruntime as ort

    for lam, batches in images.items():
        model = onnx.ModelProto()
        model.CopyFrom(model_at(lam))
        image_name = model.graph.input[0].name
        names = conv_inputs(model)
        del model.graph.output[:]
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for batch in _checked(model, batches):
            outputs = session.run(names, {image_name: batch})
            yield from zip(names, map(np.asarray, outputs), strict=True)


def _percentile_edge(counts: NDArray[np.int64]) -> int:
    """How many bins hold :data:`PERCENTILE` of the values."""
    return int(np.searchsorted(np.cumsum(counts), PERCENTILE / 100 * counts.sum())) + 1


def _entropy_edge(counts: NDArray[np.int64]) -> int:
    """How many bins to keep so that 128 levels lose least of the distribution, by Kullback-Leibler divergence."""
    levels, stride = _LEVELS + 1, 8
    bins = counts.astype(np.float64)
    bins[0] = bins[1]  # the zeros that ReLU makes are exact at any scale
    best, least = _BINS, np.inf
    for edge in range(levels, _BINS + 1, stride):
        kept = bins[:edge]
        filled = kept > 0
        level = np.arange(edge) * levels // edge
        mean = np.bincount(level, kept, levels) / np.maximum(np.bincount(level, filled, levels), 1)
        coarse = np.where(filled, mean[level], 0)
        clipped = kept.copy()
        clipped[-1] += bins[edge:].sum()
        divergence = _divergence(clipped, coarse)
        if divergence < least:
            best, least = edge, divergence
    return best


def _divergence(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of two histograms; where the candidate is empty it counts as holding a millionth."""
    there = reference > 0
    p, q = reference[there] / reference.sum(), np.maximum(candidate[there] / max(candidate.sum(), 1), 1e-6)
    return float((p * np.log(p / q)).sum())
