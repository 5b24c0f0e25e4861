"""Channels that training cut, removed from the network: what is left is an ordinary, narrower network."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.method.channel_groups import ChannelGroups
from floats_edge.method.channels import sides, unmasked
from floats_edge.method.condition import load_weights
from floats_edge.method.fold import VECTORS, AffineLayer, AffineLayers, clean_weights
from floats_edge.method.plan import inference

Channels = NDArray[np.bool_]
TOLERANCE = 1e-5
"""Largest error of the logits of a narrowed network, over their range."""


def narrowed(plain: nn.Module, layers: AffineLayers, channels: ChannelGroups) -> dict[str, AffineLayer]:
    """Remove the channels that no weight writes to; the network computes the same without them.

    Args:
        plain: network of plain layers, made narrower in place; its weights are then to be loaded anew.
        layers: of a network whose masks hold whole channels, cut by
            :class:`~floats_edge.method.channels.ChannelMasks`; NumPy arrays.
        channels: of the network.

    Returns:
        The layers with what is left, of which ``drawn`` tells where it came from; those that keep all channels are
        those given.
    """
    kept = unmasked(channels, {name: layer.mask for name, layer in layers.items() if layer.mask.ndim > 1})
    left = {name: sides(channels.layers[name], kept) for name in layers}
    for name, (outputs, *inputs) in left.items():
        _narrow(plain.get_submodule(name), outputs, *inputs)
    return {name: _narrowed(layer, left[name]) for name, layer in layers.items()}


def check_channels(plain: nn.Module, layers: AffineLayers, channels: ChannelGroups, example: Tensor) -> None:
    """Remove every second channel of a network for trial: it must compute what it does with them at zero.

    Args:
        plain: network of plain layers; its weights are changed.
        layers: of the network, dense; NumPy arrays.
        channels: of the network.
        example: images that it takes.

    Raises:
        NetworkError: it computes something else.
    """
    kept = np.resize([True, False], channels.count + 1)
    kept[-1] = True
    cut = {name: _without(layer, sides(channels.layers[name], kept)) for name, layer in layers.items()}
    narrow = copy.deepcopy(plain)
    for network, weights in ((plain, cut), (narrow, narrowed(narrow, cut, channels))):
        load_weights(network, {n: torch.from_numpy(np.asarray(w)) for n, w in clean_weights(weights).items()})
    with inference(plain), inference(narrow):
        wanted = plain(example)
        try:
            error = float((narrow(example) - wanted).abs().max() / (wanted.max() - wanted.min()))
        except (RuntimeError, ValueError) as reason:
            raise _uncuttable(f"a narrower one does not run: {reason}") from reason
    if not error <= TOLERANCE:
        raise _uncuttable(f"the logits of a narrower one are off by {error:.1e} of their range")


def _uncuttable(reason: str) -> NetworkError:
    return NetworkError(
        f"channels of this network cannot be removed: {reason}.", fix="use -o sparsity.pattern=irregular or 2:4"
    )


def _without(layer: AffineLayer, kept: Sequence[Channels]) -> AffineLayer:
    """A layer whose channels that are not kept are zero."""
    mask = layer.mask.copy()
    for axis, channels in enumerate(kept):
        mask.swapaxes(0, axis)[~channels] = False
    vectors = {name: getattr(layer, name) * kept[0] for name in VECTORS}
    return replace(layer, theta=layer.theta * mask, noise=layer.noise * mask, mask=mask, **vectors)


def _narrow(layer: nn.Module, outputs: Channels, inputs: Channels | None = None) -> None:
    """Give a plain layer parameters of the channels that are kept; their values are yet to be loaded."""
    before = layer.weight
    assert isinstance(before, Tensor), "plain layers have a weight"
    size, *rest = before.shape
    left = int(outputs.sum())
    if inputs is not None:
        rest[0] = int(inputs.sum())
    layer.weight = nn.Parameter(before.new_empty(left, *rest), requires_grad=False)
    layer.bias = nn.Parameter(before.new_empty(left), requires_grad=False)
    if isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = rest[0], left
    elif isinstance(layer, nn.Conv2d):
        if inputs is None and layer.groups > 1:
            layer.in_channels = layer.groups = left * layer.groups // size
        elif inputs is not None:
            layer.in_channels = rest[0]
        layer.out_channels = left


def _narrowed(layer: AffineLayer, kept: Sequence[Channels]) -> AffineLayer:
    """A layer of the output channels kept and, unless these are its input channels, of the input channels kept."""
    if all(channels.all() for channels in kept):
        return layer
    left = np.ix_(*kept)
    drawn = np.zeros_like(layer.mask)
    drawn[left] = True
    return replace(
        layer,
        **{name: getattr(layer, name)[left] for name in ("theta", "mask", "noise")},
        **{name: getattr(layer, name)[kept[0]] for name in VECTORS},
        drawn=drawn,
    )
