"""A graph as a function of images in PyTorch; what does not depend on them is computed once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from floats_edge.runtime.graph_rules import Node, Parts
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_operators import OPERATORS
from floats_edge.runtime.twin_tensors import INT8, Run, constant


@dataclass(frozen=True)
class _Step:
    """One operation. ``spent`` are the tensors that nothing after it reads."""

    run: Run
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    spent: tuple[str, ...] = ()


class GraphNetwork:
    """Logits of images ``[N, C, H, W]``, differentiable in the images, as a graph computes them.

    It computes in float32 whatever the precision of the graph, and quantises nothing but what the graph holds
    quantised.

    Args:
        parts: a graph that :func:`floats_edge.runtime.graph_bounds.check_sizes` let pass.
        images: name of the input that takes the images.
        replaced: names of constants that are not taken from the graph: :meth:`give` sets them.
        device: that it computes on.

    Raises:
        GraphError: an operation is not used in a way that a twin follows.
    """

    def __init__(self, parts: Parts, images: str, replaced: Collection[str], device: torch.device) -> None:
        nodes = list(parts.nodes())
        _check_quantised(parts, nodes)
        constants = {name: constant(tensor) for name, tensor in parts.constants.items() if name not in replaced}
        self._constants = {name: _placed(tensor, device) for name, tensor in constants.items()}
        self._device = torch.empty(0, device=device).device  # as results name it: ``cuda`` is ``cuda:0`` there
        self._images = images
        (self._logits,) = parts.outputs
        settled, varying = _split(nodes, images)
        self._preparation = [_step(node) for node in settled]
        self._steps = _with_spent([_step(node) for node in varying], images, self._logits)
        self._needed = {name for step in self._steps for name in step.inputs} | {self._logits}
        self._settled: dict[str, Tensor] = {}

    @torch.no_grad()
    def give(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Set all inputs but the images, and all constants to be replaced, and compute what depends on no images."""
        given = {name: _placed(torch.tensor(value), self._device) for name, value in values.items()}
        found = self._constants | given
        self._compute(self._preparation, found)
        self._settled = {name: tensor for name, tensor in found.items() if name in self._needed}

    def __call__(self, images: Tensor) -> Tensor:
        """The logits ``[N, classes]``."""
        values = self._settled | {self._images: _placed(images, self._device)}
        self._compute(self._steps, values)
        return values[self._logits]

    def _compute(self, steps: Iterable[_Step], values: dict[str, Tensor]) -> None:
        for step in steps:
            made = step.run(*[values[name] if name else None for name in step.inputs])
            results = (made,) if isinstance(made, Tensor) else made
            for name, result in zip(step.outputs, results, strict=False):
                values[name] = result if result.device == self._device else _placed(result, self._device)
            for name in step.spent:
                del values[name]


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    """Floats go to the device, images and their weights with the channels last; the others stay where they are."""
    if not tensor.is_floating_point() or not tensor.dim():
        return tensor
    return tensor.to(device, memory_format=torch.channels_last if tensor.dim() == 4 else torch.preserve_format)


def _step(node: Node) -> _Step:
    return _Step(OPERATORS[node.operator](node), node.inputs, node.outputs)


def _split(nodes: Iterable[Node], images: str) -> tuple[list[Node], list[Node]]:
    """The operations that do not depend on the images, and those that do."""
    settled: list[Node] = []
    varying: list[Node] = []
    from_images = {images}
    for node in nodes:
        if from_images.isdisjoint(node.inputs):
            settled.append(node)
        else:
            varying.append(node)
            from_images.update(node.outputs)
    return settled, varying


def _with_spent(steps: Sequence[_Step], images: str, logits: str) -> list[_Step]:
    """The steps with what each is the last to read, so that memory is free again as in an engine."""
    made = {images, *(name for step in steps for name in step.outputs)} - {""}
    read = {logits}
    result: list[_Step] = []
    for step in reversed(steps):
        last = made.intersection((*step.inputs, *step.outputs)) - read
        read |= last
        result.append(_Step(step.run, step.inputs, step.outputs, tuple(last)))
    return result[::-1]


def _check_quantised(parts: Parts, nodes: Sequence[Node]) -> None:
    """Let a graph pass in which nothing but a DequantizeLinear reads what a twin does not quantise.

    Raises:
        GraphError: something else would compute with numbers that are not those of the graph.
    """
    scales = {node.outputs[0]: node.inputs[1:] for node in nodes if node.operator == "QuantizeLinear"}
    unquantised = scales.keys() | {name for name, port in parts.inputs.items() if port.element == INT8}
    for node in nodes:
        for name in unquantised.intersection(node.inputs):
            undone = node.operator == "DequantizeLinear" and scales.get(name, node.inputs[1:]) == node.inputs[1:]
            if not undone or name in node.inputs[1:]:
                raise GraphError(f"has a {node.operator} of quantised numbers, of which no twin is made")
    if unquantised.intersection(parts.outputs):
        raise GraphError("gives quantised numbers, of which no twin is made")
