"""All layers of a network in training as one layer, as wide as all of them: folding it takes few calls of torch.

What has one number per output channel is one vector of all layers, one behind the other; their weights, whose other
dimensions differ, are a :class:`Stacked`. The arithmetic of ``fold.py`` takes such a layer as it takes any other.
"""
# pyright: reportPrivateImportUsage=false

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from floats_edge.method.batchnorm import gains_and_biases
from floats_edge.method.conditioning import scaled_noise
from floats_edge.method.fold import Ends
from floats_edge.method.layers import Layers


class Stacked:
    """Weights of several layers as one array ``[out, ...]``.

    Args:
        tensors: of the layers, each of four dimensions or fewer.
    """

    ndim = 4

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = tuple(tensors)

    @property
    def widths(self) -> list[int]:
        """How many output channels each layer has."""
        return [len(tensor) for tensor in self.tensors]

    def split(self, widths: Sequence[int]) -> tuple[Tensor, ...]:
        """The weights of each layer, as a tensor splits into parts of these ``widths``."""
        assert self.widths == widths, "they were never together"
        return self.tensors

    def __mul__(self, gain: Tensor) -> "Stacked":
        """Times one number per output channel, ``[out, 1, 1, 1]``."""
        gains = zip(gain.split(self.widths), self.tensors, strict=True)
        return Stacked(torch._foreach_mul(self.tensors, [part.flatten(tensor.ndim - 1) for part, tensor in gains]))

    def __rmul__(self, factor: float) -> "Stacked":
        return Stacked(torch._foreach_mul(self.tensors, factor))

    def __add__(self, other: "Stacked") -> "Stacked":
        return Stacked(torch._foreach_add(self.tensors, other.tensors))


@torch.no_grad()
def stacked_ends(layers: Layers) -> Ends:
    """All layers of a network at lambda 0 and 1, their BatchNorms in inference mode: tensors on its device.

    What a layer lacks, of condition, BatchNorm and bias, is filled in so that it changes nothing.
    """
    parts = [layer.trained() for layer in layers.values()]
    widths = [len(part.rows) for part in parts]
    whole = parts[0].rows.new_ones(sum(widths))
    ones, zeros, trues = whole.split(widths), (whole * 0).split(widths), (whole > 0).split(widths)
    gain, shift = (
        vectors.view(2, -1)
        for vectors in gains_and_biases([p.clean for p in parts] + [p.adv for p in parts], ones * 2, zeros * 2)
    )
    own = torch.cat([zero if part.bias is None else part.bias for part, zero in zip(parts, zeros, strict=True)])
    drawn = scaled_noise([part.condition for part in parts if part.condition is not None])
    weights: list[tuple[Tensor, ...]] = []
    for part, one, zero, true in zip(parts, ones, zeros, trues, strict=True):
        if part.condition is not None:
            weights.append((part.condition.theta, part.condition.mask, *drawn[part.condition]))
        else:
            theta = one if part.theta is None else part.theta
            weights.append((theta, _over(true, theta), _over(zero, theta), zero[0]))
    theta, mask, noise, scales = zip(*weights, strict=True)
    scale = torch.cat([scale.expand(width) for scale, width in zip(scales, widths, strict=True)])
    return Ends(Stacked(theta), Stacked(mask), Stacked(noise), scale, *gain, *(shift + own * gain))


def _over(vector: Tensor, weight: Tensor) -> Tensor:
    """One number per output channel for each entry of a weight."""
    return vector.view(-1, *[1] * (weight.ndim - 1)).expand_as(weight)
