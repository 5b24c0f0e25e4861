"""From a trained network to plain weights at any lambda: the only place where lambda becomes a weight.

With BatchNorm folded in, each conditioned layer is, per output channel, affine in its condition::

    (W0, b0) = (theta * gain_clean,                          bias_clean)
    (W1, b1) = ((theta + noise_scale * noise) * gain_adv,    bias_adv)

    interpolate:  W(lam) = W0 + lam * (W1 - W0)                                    b(lam) likewise
    paper:        lam = 0 -> W0;  lam > 0 -> (theta + lam * noise_scale * noise) * gain_adv    b(lam) = bias_adv

with ``noise = m * eta`` and ``noise_scale = alpha * sigma``. The arithmetic is written once for arrays of any kind
(torch on the training device, NumPy on a board without PyTorch), in float32 and in the order above, which the C++ kit
repeats.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from floats_edge.method.noise import standard_normal

Rule = Literal["interpolate", "paper"]
MOST_LAMBDAS = 256
"""In one list."""
Weights = dict[str, Any]
"""Plain weights by name (``stem.weight``, ``stem.bias``, ...), float32 arrays or tensors."""


@dataclass(frozen=True, eq=False)
class AffineLayer:
    """One layer of a trained network in the form of this module's equations; fields are arrays of one kind."""

    theta: Any  # [out, ...], zero outside the mask
    mask: Any  # [out, ...], bool
    noise: Any  # [out, ...], m * eta
    noise_scale: Any  # scalar, alpha * sigma
    gain_clean: Any  # [out]
    gain_adv: Any  # [out]
    bias_clean: Any  # [out]
    bias_adv: Any  # [out]
    drawn: Any = None  # where channels were removed: bool, of the shape the noise was drawn for, the weights left

    def numpy(self) -> "AffineLayer":
        """The same layer as NumPy arrays, from torch tensors on any device, none of whose channels was removed."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "drawn"}
        return AffineLayer(**{name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()})


AffineLayers = Mapping[str, AffineLayer]


def check_lambda(lam: float) -> float:
    """Return ``lam`` as a float.

    Raises:
        ValueError: it is not a number in [0, 1].
    """
    lam = float(lam)
    if not (math.isfinite(lam) and 0.0 <= lam <= 1.0):
        raise ValueError(f"lambda must be a number in [0, 1], not {lam:g}")
    return lam


def affine_in_lambda(layers: AffineLayers, rule: Rule) -> tuple[Weights, Weights]:
    """Split the weights as ``base + lam * slope``, for lam in [0, 1] (``interpolate``) or (0, 1] (``paper``)."""
    base: Weights = {}
    slope: Weights = {}
    for name, layer in layers.items():
        adv_weight = _per_channel(layer.theta, layer.gain_adv)
        noise_weight = _per_channel(layer.noise * layer.noise_scale, layer.gain_adv)
        if rule == "paper":
            base[f"{name}.weight"], slope[f"{name}.weight"] = adv_weight, noise_weight
            base[f"{name}.bias"], slope[f"{name}.bias"] = layer.bias_adv, layer.bias_adv * 0
        else:
            clean_weight = _per_channel(layer.theta, layer.gain_clean)
            hat_weight = _per_channel(layer.theta + layer.noise * layer.noise_scale, layer.gain_adv)
            base[f"{name}.weight"], slope[f"{name}.weight"] = clean_weight, hat_weight - clean_weight
            base[f"{name}.bias"], slope[f"{name}.bias"] = layer.bias_clean, layer.bias_adv - layer.bias_clean
    return base, slope


def weights_at(layers: AffineLayers, lam: float, rule: Rule) -> Weights:
    """Plain weights of the folded network at ``lam`` in [0, 1]."""
    lam = check_lambda(lam)
    if lam == 0:
        return clean_weights(layers)
    base, slope = affine_in_lambda(layers, rule)
    return {name: base[name] + lam * slope[name] for name in base}


def clean_weights(layers: AffineLayers) -> Weights:
    """Plain weights at lambda = 0, where both rules agree."""
    weights: Weights = {}
    for name, layer in layers.items():
        weights[f"{name}.weight"] = _per_channel(layer.theta, layer.gain_clean)
        weights[f"{name}.bias"] = layer.bias_clean
    return weights


def end_weights(layers: AffineLayers, rule: Rule) -> tuple[Weights, Weights, Weights]:
    """Weights that bound all others: every entry of W(lam), lam in [0, 1], is as large in magnitude in one of these.

    Between the ends an entry is ``base + lam * slope``; its magnitude is convex in lam and so peaks at an end of
    [0, 1], and the largest of several convex functions, a whole channel's, is convex again. Under the rule ``paper``,
    W(0) lies apart from the line, whose lower end is then ``base``.
    """
    base, slope = affine_in_lambda(layers, rule)
    return clean_weights(layers), base, {name: base[name] + slope[name] for name in base}


def _per_channel(weight: Any, gain: Any) -> Any:
    """``weight`` times ``gain`` along the first axis."""
    return weight * gain.reshape(-1, *[1] * (weight.ndim - 1))


def masked_noise(seed: int, layer_index: int, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``m * eta`` of one layer from its seed, as :class:`AffineLayer` wants it."""
    return np.where(mask, standard_normal(seed, layer_index, mask.shape), np.float32(0))


def drawn_noise(seed: int, layer_index: int, drawn: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """``eta`` of one layer whose channels were removed: of the draw for the whole layer, what ``drawn`` left."""
    return standard_normal(seed, layer_index, drawn.shape)[drawn].reshape(shape)
