"""What int8 quantises: a rule that is read off the graph, with a reason for each convolution that stays in float.

A convolution is quantised with the tensor it reads; an activation in between belongs to the convolution before it, so
it is the activation's result that is quantised, where the next convolution reads it. Pools and concatenations need no
rule: TensorRT moves a quantiser back through them. Linear layers stay in float: their errors are the logits' own.

What TensorRT-RTX 1.7.1 makes of a graph is said in its plans, as text. *Read there* (networks of a few layers):

- a depthwise convolution in int8 has each channel padded to four, so it reads as many bytes as in float32;
- an identity shortcut that stays in float is written twice, in int8 for the convolution and in float for the addition;
- a quantiser between a convolution and the addition after it saves nothing and rounds once more. NVIDIA's guide and
  its Model-Optimizer (pull request 425) say the same: quantise the residual input, and no other.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

LEAST_CHANNELS = 4
"""Input channels per group from which TensorRT-RTX pads none."""
NARROW = f"fewer than {LEAST_CHANNELS} channels per group, which int8 pads to {LEAST_CHANNELS}: no smaller than float"
POOLED = "it reads the means of whole channels, as a gate does: little work, and its error scales channels"

_POOLS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")
_TAKEN_ALONG = ("BatchNormalization", "Identity")
"""What TensorRT makes part of the convolution before it; an activation would end what an addition can join."""


@dataclass(frozen=True)
class Shortcut:
    """An addition that a convolution can take along, and what is quantised so that it does: the other input.

    Attributes:
        result: of the addition.
        tensor: the input to be quantised.
        layer: the convolution; if it is not quantised, the addition is not either.
    """

    result: str
    tensor: str
    layer: str


@dataclass(frozen=True)
class Int8Rule:
    """What of a graph is quantised; the names are those of the graph in every lambda mode.

    Attributes:
        quantised: by layer, in the graph's order, the tensor that its convolution reads.
        kept: why, by layer, a convolution is not quantised.
        shortcuts: of the additions.
    """

    quantised: Mapping[str, str]
    kept: Mapping[str, str]
    shortcuts: tuple[Shortcut, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The activations that are quantised, each once: those that have a range. The first is the stem's input."""
        return tuple(dict.fromkeys((*self.quantised.values(), *(shortcut.tensor for shortcut in self.shortcuts))))


def int8_rule(template: onnx.ModelProto, layers: Collection[str]) -> Int8Rule:
    """Decide what is quantised.

    Args:
        template: a float32 graph whose weights are initializers or inputs; the first input is the images.
        layers: whose weights are ``<layer>.weight``. A convolution with weights of another kind is left as it is.
    """
    graph = template.graph
    convolutions = {
        node.input[1].removesuffix(".weight"): node
        for node in graph.node
        if node.op_type == "Conv" and node.input[1].removesuffix(".weight") in layers
    }
    channels = {tensor.name: tensor.dims[1] for tensor in graph.initializer if len(tensor.dims) > 1}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) > 1:
            channels[value.name] = dims[1].dim_value
    pooled = _pooled(graph)
    kept: dict[str, str] = {}
    for layer, node in convolutions.items():
        if pooled.get(node.input[0]):
            kept[layer] = POOLED
        elif _groups(node) > 1 and channels[node.input[1]] < LEAST_CHANNELS:
            kept[layer] = NARROW
    quantised = {layer: node.input[0] for layer, node in convolutions.items() if layer not in kept}
    return Int8Rule(quantised, kept, _shortcuts(graph, quantised, pooled))


def _groups(convolution: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)


def _pooled(graph: onnx.GraphProto) -> dict[str, bool]:
    """By tensor that depends on the images: whether it holds nothing but what a pool over channels left of them."""
    found = {graph.input[0].name: False}
    for node in graph.node:
        read = [found[name] for name in node.input if name in found]
        if read and node.op_type != "Shape":  # sizes hold nothing of the images
            found.update(dict.fromkeys(node.output, node.op_type in _POOLS or all(read)))
    return found


def _shortcuts(
    graph: onnx.GraphProto, quantised: Mapping[str, str], pooled: Mapping[str, bool]
) -> tuple[Shortcut, ...]:
    """The additions of a quantised convolution's result and a tensor that nothing reads in float.

    Of two convolutions the later one takes the addition along: the result of the other is there by then.
    """
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in set(node.input))
    readers.update(value.name for value in graph.output)
    order = {layer: index for index, layer in enumerate(quantised)}
    found: list[Shortcut] = []
    for node in graph.node:
        if node.op_type != "Add" or len(set(node.input)) < 2 or any(pooled.get(name, True) for name in node.input):
            continue
        writers = {name: _only_writer(name, makers, readers) for name in node.input}
        fitting = {layer: name for name, layer in writers.items() if layer in order}
        if fitting:
            layer = max(fitting, key=order.__getitem__)
            (other,) = writers.keys() - {fitting[layer]}
            found.append(Shortcut(node.output[0], other, layer))
    in_int8 = Counter((*quantised.values(), *(shortcut.tensor for shortcut in found)))
    return tuple(shortcut for shortcut in found if in_int8[shortcut.tensor] == readers[shortcut.tensor])


def _only_writer(name: str, makers: Mapping[str, onnx.NodeProto], readers: Mapping[str, int]) -> str:
    """The layer whose convolution wrote a tensor, if nothing else reads that result on its way; otherwise nothing."""
    while name in makers and readers[name] == 1 and makers[name].op_type in _TAKEN_ALONG:
        name = makers[name].input[0]
    alone = name in makers and readers[name] == 1 and makers[name].op_type == "Conv"
    return makers[name].input[1].removesuffix(".weight") if alone else ""
