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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from floats_edge.method.noise import standard_normal

if TYPE_CHECKING:
    from torch import nn

Rule = Literal["interpolate", "paper"]
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


def fold_network(network: "nn.Module") -> dict[str, AffineLayer]:
    """Read the affine form off a FLOAT or plain network (its BatchNorm in inference mode), as tensors on its device.

    Both ends of a plain network are the same: every lambda gives the same weights. A BatchNorm that no convolution
    precedes becomes a layer of its own, ``theta`` one for each channel: its weight is a scale, its bias a shift.
    """
    folded = ((name, _fold(unit)) for name, unit in network.named_modules())
    return {name: layer for name, layer in folded if layer is not None}


def _fold(unit: "nn.Module") -> AffineLayer | None:
    """The affine form of one layer; None if ``unit`` is none."""
    from floats_edge.method.conditioning import FloatBareConv, FloatConv, FloatLinear, FloatNorm
    from floats_edge.method.plain import PlainBareConv, PlainConv, PlainLinear, PlainNorm

    if isinstance(unit, FloatConv):
        condition, clean, adv = _condition(unit.weight), _batchnorm(unit.norm.clean), _batchnorm(unit.norm.adv)
    elif isinstance(unit, FloatNorm):
        clean, adv = _batchnorm(unit.norm.clean), _batchnorm(unit.norm.adv)
        condition = _no_condition(clean[0] * 0 + 1)
    elif isinstance(unit, FloatBareConv):
        condition = _condition(unit.weight)
        clean = adv = _only_bias(unit.weight.theta.new_zeros(len(unit.weight.theta)))
    elif isinstance(unit, FloatLinear):
        condition = _condition(unit.weight)
        clean = adv = _only_bias(unit.bias.detach())
    elif isinstance(unit, PlainConv):
        condition = _no_condition(unit.weight.detach())
        clean = adv = _batchnorm(unit.norm)
    elif isinstance(unit, PlainNorm):
        clean = adv = _batchnorm(unit.norm)
        condition = _no_condition(clean[0] * 0 + 1)
    elif isinstance(unit, PlainBareConv):
        condition = _no_condition(unit.weight.detach())
        clean = adv = _only_bias(unit.weight.new_zeros(len(unit.weight)))
    elif isinstance(unit, PlainLinear):
        condition = _no_condition(unit.weight.detach())
        clean = adv = _only_bias(unit.bias.detach())
    else:
        return None
    (gain_clean, bias_clean), (gain_adv, bias_adv) = clean, adv
    return AffineLayer(*condition, gain_clean, gain_adv, bias_clean, bias_adv)


def _only_bias(bias: Any) -> tuple[Any, Any]:
    """Per-channel ``(gain, bias)`` where there is no BatchNorm."""
    return bias * 0 + 1, bias


def _condition(weight: Any) -> tuple[Any, Any, Any, Any]:
    """``(theta, mask, noise, noise_scale)`` of a conditioned weight."""
    return weight.theta.detach(), weight.mask, weight.mask * weight.eta, weight.alpha.detach() * weight.sigma()


def _no_condition(theta: Any) -> tuple[Any, Any, Any, Any]:
    """The same of a plain weight: dense, without noise."""
    nothing = theta.new_zeros(theta.shape)
    return theta, nothing == 0, nothing, theta.new_zeros(())


def _batchnorm(norm: Any) -> tuple[Any, Any]:
    """Per-channel ``(gain, bias)`` of a ``BatchNorm2d`` in inference mode: ``y = gain * x + bias``."""
    gain = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias.detach() - norm.running_mean * gain


def _per_channel(weight: Any, gain: Any) -> Any:
    """``weight`` times ``gain`` along the first axis."""
    return weight * gain.reshape(-1, *[1] * (weight.ndim - 1))


def masked_noise(seed: int, layer_index: int, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``m * eta`` of one layer from its seed, as :class:`AffineLayer` wants it."""
    return np.where(mask, standard_normal(seed, layer_index, mask.shape), np.float32(0))


def drawn_noise(seed: int, layer_index: int, drawn: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """``eta`` of one layer whose channels were removed: of the draw for the whole layer, what ``drawn`` left."""
    return standard_normal(seed, layer_index, drawn.shape)[drawn].reshape(shape)
