"""INT8 by explicit quantisation (Q/DQ), with scales valid at every lambda; ``int8_rule`` says what is quantised.

ONNX Runtime's own ``quantize_static`` cannot be used: it wants constant weights, and one set of them. The graphs are
those it would write with per-channel symmetric int8 and float biases. Zero points are 0, as TensorRT demands.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from floats_edge.artifacts.manifest import CalibrationMethod
from floats_edge.deploy.int8_rule import Shortcut
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


def calibrate(
    model_at: ModelAt, tensors: Sequence[str], images: Mapping[float, Iterable[Images]], method: CalibrationMethod
) -> dict[str, float]:
    """Largest magnitude that each activation is to represent, by tensor name.

    Args:
        model_at: the float32 network at each lambda of ``images``.
        tensors: the activations; the first is what the stem reads.
        images: by lambda, batches of float32 ``[n, C, H, W]`` in [0, 1], which are iterated over once or twice: at
            least :data:`MIN_IMAGES`, from the evaluation's loader but never its test images, clean and attacked at
            that lambda.
        method: ``minmax`` keeps the largest value, ``percentile`` 99.99 % of the values, ``entropy`` what loses least
            information (Migacz, GTC 2017, S7310). The images' own range is always kept whole.

    Raises:
        DataError: too few images, or of another shape than the network takes.
    """
    largest: dict[str, float] = {}
    for name, values in _values(model_at, tensors, images):
        largest[name] = max(largest.get(name, 0.0), float(np.abs(values).max()))
    if method == "minmax":
        return largest
    counts = {name: np.zeros(_BINS, dtype=np.int64) for name in largest}
    for name, values in _values(model_at, tensors, images):
        counts[name] += np.histogram(np.abs(values), _BINS, range=(0, largest[name] or 1))[0]
    edge_of = _percentile_edge if method == "percentile" else _entropy_edge
    edges = {name: edge_of(count) for name, count in counts.items()}
    edges[tensors[0]] = _BINS  # the stem's: pixels fill their range, and clipping black or white ruins an image
    return {name: largest[name] * edge / _BINS for name, edge in edges.items()}


def quantize(
    model: onnx.ModelProto, shortcuts: Sequence[Shortcut], ranges: Mapping[str, float], scales: Mapping[str, Array]
) -> onnx.ModelProto:
    """Quantise the convolutions of a float32 graph whose weights have scales, and the additions that go with them.

    A tensor is quantised once, for all that read it in int8. Constant weights become int8 constants; weights computed
    in the graph are quantised there. The rest stays as it is.

    Args:
        model: the graph.
        shortcuts: of the additions, from :func:`floats_edge.deploy.int8_rule.int8_rule`.
        ranges: of the activations, from :func:`calibrate`.
        scales: of the weights to be quantised, from :func:`weight_scales`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    added = {shortcut.result: shortcut.tensor for shortcut in shortcuts if f"{shortcut.layer}.weight" in scales}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for original in model.graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        is_quantised = node.op_type == "Conv" and node.input[1] in scales
        source = node.input[0] if is_quantised else added.get(node.output[0])
        if source is not None:
            if source not in done:
                scale = np.float32(max(ranges[source], np.finfo(np.float32).tiny * _LEVELS) / _LEVELS)
                nodes += _quantizer(graph, source, scale), _dequantizer(f"{source}.int8", source)
                done.add(source)
            node.input[list(node.input).index(source)] = f"{source}.dequantized"
        if is_quantised:
            weight = node.input[1]
            if weight in constants:
                array = quantized(numpy_helper.to_array(constants[weight]), scales[weight])
                constants[weight].CopyFrom(numpy_helper.from_array(array, weight))
                _add_scale(graph, weight, scales[weight])
                nodes.append(_dequantizer(weight, weight))
            else:
                nodes += _quantizer(graph, weight, scales[weight]), _dequantizer(f"{weight}.int8", weight)
            node.input[1] = f"{weight}.dequantized"
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


def _values(
    model_at: ModelAt, tensors: Sequence[str], images: Mapping[float, Iterable[Images]]
) -> Iterator[tuple[str, Array]]:
    """Name and values of every activation, batch by batch."""
    import onnxruntime as ort

    for lam, batches in images.items():
        model = onnx.ModelProto()
        model.CopyFrom(model_at(lam))
        image_name = model.graph.input[0].name
        del model.graph.output[:]
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for batch in _checked(model, batches):
            outputs = session.run(list(tensors), {image_name: batch})
            yield from zip(tensors, map(np.asarray, outputs), strict=True)


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
