"""Channels that training cut, removed from the network: what is left is an ordinary, narrower network."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from floats_edge.method.channels import ChannelGroup, axes, unmasked
from floats_edge.method.fold import AffineLayer, AffineLayers
from floats_edge.models.groups import channel_groups
from floats_edge.models.spec import ModelSpec, Widths

Channels = NDArray[np.bool_]


def narrowed(layers: AffineLayers, spec: ModelSpec) -> tuple[dict[str, AffineLayer], ModelSpec]:
    """Remove the channels that no weight writes to; the network computes the same without them.

    Args:
        layers: of a network whose masks hold whole channels, cut by
            :class:`~floats_edge.method.channels.ChannelMasks`; NumPy arrays.
        spec: its topology.

    Returns:
        The layers with what is left, of which ``drawn`` tells where it came from, and their topology. Layers that keep
        all channels, and a topology of which nothing was cut, are those given.
    """
    groups = channel_groups(spec)
    masks = {name: layer.mask for name, layer in layers.items()}
    kept = {group.name: unmasked(group, masks) for group in groups}
    if all(channels.all() for channels in kept.values()):
        return dict(layers), spec
    sides = axes(groups, kept)
    narrow = {
        name: _narrowed(
            layer, [side.get(name, _all(size)) for side, size in zip(sides, layer.mask.shape, strict=False)]
        )
        for name, layer in layers.items()
    }

    def left(of: tuple[ChannelGroup, ...]) -> tuple[int, ...]:
        return tuple(int(kept[group.name].sum()) for group in of)

    widths = Widths(streams=left(groups.streams), inner=left(groups.inner))
    return narrow, spec.model_copy(update={"widths": widths})


def _all(size: int) -> Channels:
    return np.ones(size, dtype=bool)


def _narrowed(layer: AffineLayer, kept: list[Channels]) -> AffineLayer:
    """A layer of the output channels kept and, unless it is a normalisation, of the input channels kept."""
    if all(channels.all() for channels in kept):
        return layer
    left = np.ix_(*kept)
    drawn = np.zeros_like(layer.mask)
    drawn[left] = True
    return replace(
        layer,
        **{name: getattr(layer, name)[left] for name in ("theta", "mask", "noise")},
        **{name: getattr(layer, name)[kept[0]] for name in ("gain_clean", "gain_adv", "bias_clean", "bias_adv")},
        drawn=drawn,
    )
