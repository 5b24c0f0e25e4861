"""Channels that training cut, removed from the network: what is left is an ordinary, narrower network."""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.method.channel_groups import STAYS, ChannelGroups
from floats_edge.method.channels import sides, unmasked
from floats_edge.method.condition import conditioned_layers, load_weights
from floats_edge.method.fold import VECTORS, AffineLayer, AffineLayers, clean_weights
from floats_edge.method.plan import inference
from floats_edge.method.removal import Channels, Sides, remove, resize

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
    kept = _every_second(channels)
    cut = {name: _without(layer, sides(channels.layers[name], kept)) for name, layer in layers.items()}
    narrow = copy.deepcopy(plain)
    for network, weights in ((plain, cut), (narrow, narrowed(narrow, cut, channels))):
        load_weights(network, {n: torch.from_numpy(np.asarray(w)) for n, w in clean_weights(weights).items()})
    with inference(plain), inference(narrow):
        wanted = plain(example)
        extent = wanted.max() - wanted.min()
        if extent == 0:
            raise _uncuttable("its logits are all alike, as where the head begins with zeros, so no error would show")
        try:
            error = float((narrow(example) - wanted).abs().max() / extent)
        except (RuntimeError, ValueError) as reason:
            raise _uncuttable(f"a narrower one does not run: {reason}") from reason
    if not error <= TOLERANCE:
        raise _uncuttable(f"the logits of a narrower one are off by {error:.1e} of their range")


def check_training(network: nn.Module, channels: ChannelGroups, example: Tensor) -> None:
    """Remove every second channel of a copy of a conditioned network for trial: it must run in training mode.

    Raises:
        NetworkError: it does not.
    """
    narrow, kept = copy.deepcopy(network), _every_second(channels)
    layers = conditioned_layers(narrow)
    left = {name: sides(channels.layers[name], kept) for name in layers}
    remove(layers, left, torch.optim.SGD(narrow.parameters()))
    with inference(narrow):
        narrow.train()
        try:
            narrow(torch.cat((example, example)))  # BatchNorm cannot train on one image
        except (RuntimeError, ValueError) as reason:
            raise _uncuttable(f"a narrower one does not train: {reason}") from reason


def _every_second(channels: ChannelGroups) -> Channels:
    """The classes that a trial keeps."""
    kept = np.resize([True, False], channels.count + 1)
    kept[STAYS] = True
    return kept


def _uncuttable(reason: str) -> NetworkError:
    return NetworkError(
        f"channels of this network cannot be removed: {reason}.", fix="use -o sparsity.pattern=irregular or 2:4"
    )


def _without(layer: AffineLayer, kept: Sides) -> AffineLayer:
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
    left, rest = int(outputs.sum()), list(before.shape[1:])
    if inputs is not None:
        rest[0] = int(inputs.sum())
    layer.weight = nn.Parameter(before.new_empty(left, *rest), requires_grad=False)
    layer.bias = nn.Parameter(before.new_empty(left), requires_grad=False)
    resize(layer, outputs, inputs)


def _narrowed(layer: AffineLayer, kept: Sides) -> AffineLayer:
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
