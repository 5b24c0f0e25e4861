"""From a trained network to plain weights at any lambda: the only place where lambda becomes a weight.

Training leaves each conditioned layer with two ends, BatchNorm folded in, and a rule says what lies between them::

    (W0, b0) = (theta * gain_clean,                          bias_clean)
    (W1, b1) = ((theta + noise_scale * noise) * gain_adv,    bias_adv)

    interpolate:  W(lam) = W0 + lam * (W1 - W0)                                    b(lam) likewise
    paper:        lam = 0 -> W0;  lam > 0 -> (theta + lam * noise_scale * noise) * gain_adv    b(lam) = bias_adv

with ``noise = m * eta`` and ``noise_scale = alpha * sigma``. :func:`affine` applies the rule, once; what it gives is
deployed and needs none. Per output channel, for lam in (0, 1]::

    W(lam) = theta * (gain_base + lam * gain_slope) + noise * lam * noise_slope
    b(lam) = bias_base + lam * bias_slope

and ``(W0, b0)`` at lam = 0. By either rule the noise vanishes with lam, so it has a slope and no base. A weight is
computed as ``base + lam * slope``, with ``base = theta * gain_base`` and ``slope = theta * gain_slope + noise *
noise_slope``, in float32 and in this order, which the C++ kit repeats. The arithmetic is written once for arrays of any
kind: torch on the training device, NumPy on a board without PyTorch.
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
class Ends:
    """A layer of a trained network at lambda 0 and 1: one layer, or several as one (``stack.py``)."""

    theta: Any  # [out, ...], zero outside the mask
    mask: Any  # [out, ...], bool
    noise: Any  # [out, ...], m * eta
    noise_scale: Any  # [out] or a scalar, alpha * sigma
    gain_clean: Any  # [out]
    gain_adv: Any  # [out]
    bias_clean: Any  # [out]
    bias_adv: Any  # [out]


VECTORS = ("gain_clean", "gain_base", "gain_slope", "noise_slope", "bias_clean", "bias_base", "bias_slope")
"""The fields of an :class:`AffineLayer` that have one number per output channel."""


@dataclass(frozen=True, eq=False)
class AffineLayer:
    """A layer at any lambda: one layer, or several as one (``stack.py``)."""

    theta: Any  # [out, ...], zero outside the mask
    mask: Any  # [out, ...], bool
    noise: Any  # [out, ...], m * eta
    gain_clean: Any  # [out]
    gain_base: Any  # [out]
    gain_slope: Any  # [out]
    noise_slope: Any  # [out]
    bias_clean: Any  # [out]
    bias_base: Any  # [out]
    bias_slope: Any  # [out]
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


def affine(ends: Ends, rule: Rule) -> AffineLayer:
    """A layer at any lambda, by a rule."""
    if rule == "paper":
        gain_base, bias_base = ends.gain_adv, ends.bias_adv
    else:
        gain_base, bias_base = ends.gain_clean, ends.bias_clean
    return AffineLayer(
        theta=ends.theta,
        mask=ends.mask,
        noise=ends.noise,
        gain_clean=ends.gain_clean,
        gain_base=gain_base,
        gain_slope=ends.gain_adv - gain_base,
        noise_slope=ends.noise_scale * ends.gain_adv,
        bias_clean=ends.bias_clean,
        bias_base=bias_base,
        bias_slope=ends.bias_adv - bias_base,
    )


def affine_in_lambda(layers: AffineLayers) -> tuple[Weights, Weights]:
    """Split the weights as ``base + lam * slope``, for lam in (0, 1]."""
    base: Weights = {}
    slope: Weights = {}
    for name, layer in layers.items():
        of_theta, of_noise = _per_channel(layer.theta, layer.gain_slope), _per_channel(layer.noise, layer.noise_slope)
        base[f"{name}.weight"], slope[f"{name}.weight"] = (
            _per_channel(layer.theta, layer.gain_base),
            of_theta + of_noise,
        )
        base[f"{name}.bias"], slope[f"{name}.bias"] = layer.bias_base, layer.bias_slope
    return base, slope


def weights_at(layers: AffineLayers, lam: float) -> Weights:
    """Plain weights of the folded network at ``lam`` in [0, 1]."""
    lam = check_lambda(lam)
    if lam == 0:
        return clean_weights(layers)
    base, slope = affine_in_lambda(layers)
    return {name: base[name] + lam * slope[name] for name in base}


def clean_weights(layers: AffineLayers) -> Weights:
    """Plain weights at lambda = 0."""
    weights: Weights = {}
    for name, layer in layers.items():
        weights[f"{name}.weight"] = _per_channel(layer.theta, layer.gain_clean)
        weights[f"{name}.bias"] = layer.bias_clean
    return weights


def end_weights(layers: AffineLayers) -> tuple[Weights, Weights, Weights]:
    """Weights that bound all others: every entry of W(lam), lam in [0, 1], is as large in magnitude in one of these.

    Between the ends an entry is ``base + lam * slope``; its magnitude is convex in lam and so peaks at an end of
    [0, 1], and the largest of several convex functions, a whole channel's, is convex again. W(0) may lie apart from
    the line, whose lower end is ``base``.
    """
    base, slope = affine_in_lambda(layers)
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
