"""Which channels of a network can only be removed together: found by running it on labels beside values.

Every output channel of a convolution or linear layer gets a label, and every tensor that is computed from it carries,
beside its values, a tensor of labels of the same shape. What adds or multiplies channels element by element makes them
one; what mixes them, or cuts them apart at fixed places, pins them: they stay. So does what reaches the logits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from floats_edge.method.layers import Scale
from floats_edge.method.plan import inference

Classes = NDArray[np.int64]
STAYS = -1
"""Class of a channel that cannot be removed."""


@dataclass(frozen=True, eq=False)
class LayerChannels:
    """The classes of one layer's channels; channels of one class can only be removed together, in all layers.

    Attributes:
        outputs: of its output channels, ``[out]``.
        inputs: of its input channels, ``[in]``; None: they are its output channels, as a BatchNorm's are, or stay.
    """

    outputs: Classes
    inputs: Classes | None


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Classes that stand in the same layers, and so are alike.

    Attributes:
        name: of the first layer whose output channels they are.
        classes: of which some may be removed, ``[size]``.
    """

    name: str
    classes: Classes


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """The channels of a network: by layer, and in groups; the classes are counted from 0."""

    layers: Mapping[str, LayerChannels]
    groups: tuple[ChannelGroup, ...]

    @property
    def count(self) -> int:
        """How many classes there are."""
        return sum(len(group.classes) for group in self.groups)


def channel_groups(plain: nn.Module, names: Mapping[str, object], example: Tensor) -> ChannelGroups:
    """The channels that can be removed from a network of plain layers.

    Args:
        plain: the network, in inference mode.
        names: of its layers: convolutions, linear layers, scales.
        example: images ``[N, C, H, W]``.
    """
    labels = _Labels()
    hooks = []
    for name in names:
        layer = plain.get_submodule(name)
        hooks.append(layer.register_forward_pre_hook(lambda _, args: labels.enter(args[0])))
        hooks.append(layer.register_forward_hook(lambda layer, _, output, name=name: labels.leave(name, layer, output)))
    try:
        with inference(plain), labels:
            output = plain(example)
    finally:
        for hook in hooks:
            hook.remove()
    labels.pin(labels.of(output))
    return _grouped(labels.layers())


def _grouped(layers: dict[str, LayerChannels]) -> ChannelGroups:
    """The classes renumbered by group."""
    places: dict[int, list[str]] = {}
    for name, layer in layers.items():
        for side, classes in (("out", layer.outputs), ("in", layer.inputs)):
            for label in () if classes is None else classes[classes != STAYS]:
                places.setdefault(int(label), []).append(f"{side} {name}")
    alike: dict[tuple[str, ...], list[int]] = {}
    for label, where in places.items():
        alike.setdefault(tuple(where), []).append(label)
    order = np.full(max(places, default=0) + 2, STAYS)  # the last entry is that of STAYS
    groups: list[ChannelGroup] = []
    start = 0
    for where, members in alike.items():
        classes = np.arange(start, start + len(members))
        order[members] = classes
        groups.append(ChannelGroup(where[0].removeprefix("out "), classes))
        start += len(members)
    numbered = {
        name: LayerChannels(order[layer.outputs], None if layer.inputs is None else order[layer.inputs])
        for name, layer in layers.items()
    }
    return ChannelGroups(numbered, tuple(groups))


class _Labels(TorchDispatchMode):
    """Labels of tensors while a network runs: 0 is no channel's; those that became one have one root."""

    def __init__(self) -> None:
        super().__init__()
        self._roots = [0]
        self._pinned = {0}
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}  # by identity, with the tensor, lest another takes it
        self._inside = 0
        self._seen: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._entered: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._inside:
            self._follow(func.overloadpacket.__name__, func, args, kwargs or {}, result)
        return result

    def of(self, tensor: Tensor) -> Tensor:
        """Labels of ``tensor``, int64 of its shape."""
        known = self._labels.get(id(tensor))
        return torch.zeros(tensor.shape, dtype=torch.int64) if known is None else known[1]

    def give(self, tensor: Tensor, labels: Tensor) -> None:
        self._labels[id(tensor)] = (tensor, labels)

    def fresh(self, count: int) -> Tensor:
        start = len(self._roots)
        self._roots += range(start, start + count)
        return torch.arange(start, start + count)

    def root(self, label: int) -> int:
        while self._roots[label] != label:
            self._roots[label] = self._roots[self._roots[label]]
            label = self._roots[label]
        return label

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Make the labels at the same places of two tensors one, where both have one."""
        both = (one > 0) & (other > 0) & (one != other)
        for a, b in torch.stack((one[both], other[both])).unique(dim=1).T.tolist():
            a, b = sorted((self.root(a), self.root(b)))
            self._roots[b] = a
            if b in self._pinned:
                self._pinned.add(a)

    def pin(self, labels: Tensor) -> None:
        self._pinned |= {self.root(label) for label in labels.unique().tolist()}

    def layers(self) -> dict[str, LayerChannels]:
        """The classes of all layers that ran, pinned ones as channels that stay."""
        pinned = {self.root(label) for label in self._pinned}

        def classes(labels: Tensor) -> Classes:
            roots = (self.root(label) for label in labels.tolist())
            return np.array([STAYS if root in pinned else root for root in roots], dtype=np.int64)

        return {
            name: LayerChannels(classes(outputs), None if inputs is None else classes(inputs))
            for name, (outputs, inputs) in self._seen.items()
        }

    def enter(self, x: Tensor) -> None:
        """A layer begins to compute from ``x``: the operations inside it are not followed."""
        self._inside += 1
        self._entered.append(self.of(x))

    def leave(self, name: str, layer: nn.Module, output: Any) -> None:
        """A layer has computed ``output``."""
        axis = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
        inputs = self._one_for_each_channel(self._entered.pop(), axis)
        if isinstance(layer, Scale):
            outputs, reads = inputs, None
        elif isinstance(layer, nn.Conv2d) and layer.groups > 1:
            outputs, reads = self._of_groups(layer, inputs), None
        else:
            outputs, reads = self.fresh(output.shape[axis]), inputs
        self._seen[name] = outputs, reads
        shape = [1] * output.ndim
        shape[axis] = -1
        self.give(output, outputs.view(shape).expand(output.shape))
        self._inside -= 1

    def _of_groups(self, layer: nn.Conv2d, inputs: Tensor) -> Tensor:
        """A depthwise convolution keeps its channels; other groups must stay as they are."""
        if layer.groups == layer.in_channels and bool((inputs > 0).all()):
            return inputs.repeat_interleave(layer.out_channels // layer.groups)
        self.pin(inputs)
        return torch.zeros(layer.out_channels, dtype=torch.int64)

    def _one_for_each_channel(self, labels: Tensor, axis: int) -> Tensor:
        """The labels along ``axis``, those that differ elsewhere made one."""
        rows = labels.movedim(axis, 0).flatten(1)
        first = rows.amax(dim=1)
        self.unite(rows, first[:, None].expand_as(rows))
        if bool(((rows == 0).any(dim=1) & (first > 0)).any()):
            self.pin(labels)
        return first

    def _follow(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        tensors = [x for x in _flat(args) if isinstance(x, Tensor)]
        if all(id(x) not in self._labels for x in tensors):
            return
        if name in _MOVES and not (name in _CUTS and self._cuts(args, result)):
            labels = func(*_map(args, lambda x: self.of(x).contiguous()), **kwargs)
            for tensor, moved in zip(_flat((result,)), _flat((labels,)), strict=True):
                self.give(tensor, moved)
        elif name in _ELEMENTWISE and isinstance(result, Tensor):
            self.give(result, self._merged(tensors, result))
        elif name in _SPATIAL and tensors[0].ndim == 4:
            output = next(x for x in _flat((result,)) if isinstance(x, Tensor))
            channels = self._one_for_each_channel(self.of(tensors[0]), 1)
            over = [2, 3] if name not in _REDUCTIONS else args[1] if len(args) > 1 else None
            if over is None or 1 in [axis % 4 for axis in _flat((over,))] or output.shape[1] != len(channels):
                self.pin(channels)
            else:
                shape = (1, -1, *[1] * (output.ndim - 2))
                self.give(output, channels.view(shape).expand(output.shape))
        else:
            for tensor in tensors:
                self.pin(self.of(tensor))

    def _cuts(self, args: tuple[Any, ...], result: Any) -> bool:
        """Whether an operation takes an axis apart along which channels differ."""
        source = args[0]
        axis = _varies(self.of(source))
        size, before = source.shape[axis], math.prod(source.shape[:axis])
        for part in _flat((result,)):
            if part.ndim <= axis or math.prod(part.shape[:axis]) != before or part.shape[axis] % size:
                return True
        return False

    def _merged(self, tensors: list[Tensor], result: Tensor) -> Tensor:
        """Labels of an element by element result: one of each place's, after all of these were made one."""
        merged = torch.zeros(result.shape, dtype=torch.int64)
        for tensor in tensors:
            labels = self.of(tensor).expand(result.shape)
            self.unite(merged, labels)
            merged = torch.where(merged > 0, merged, labels)
        channels = result.ndim - _varies(merged)
        for tensor in tensors:  # what has a value for each channel that is no channel's cannot be made shorter
            if tensor.ndim >= channels and tensor.shape[-channels] > 1:
                self.pin(merged[(self.of(tensor) == 0).expand(result.shape)])
        return merged


def _varies(labels: Tensor) -> int:
    """The first axis along which labels differ; that of channels if none does."""
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1 and not torch.equal(labels, labels.narrow(axis, 0, 1).expand_as(labels)):
            return axis
    return min(1, labels.ndim - 1)


def _flat(values: Any) -> list[Any]:
    if isinstance(values, list | tuple):
        return [leaf for value in values for leaf in _flat(value)]
    return [values]


def _map(values: Any, of: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(values, list | tuple):
        return type(values)(_map(value, of) for value in values)
    return of(values) if isinstance(values, Tensor) else values


_CUTS = {"view", "_unsafe_view", "reshape", "slice", "select", "split", "split_with_sizes", "unbind", "narrow"}
_MOVES = _CUTS | {"permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "cat", "alias", "detach", "clone"}
_ELEMENTWISE = {
    *("relu", "relu_", "hardswish", "hardswish_", "sigmoid", "silu", "silu_", "gelu", "hardtanh", "hardtanh_"),
    *("hardsigmoid", "hardsigmoid_", "leaky_relu", "leaky_relu_", "elu", "tanh", "clamp", "clamp_min", "mish", "neg"),
    *("add", "add_", "sub", "mul", "mul_", "div", "div_", "_to_copy", "abs", "exp", "pow", "sqrt", "maximum"),
}
_REDUCTIONS = {"mean", "amax", "sum"}
_SPATIAL = _REDUCTIONS | {
    *("avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "constant_pad_nd"),
    *("adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "reflection_pad2d", "replication_pad2d"),
}
