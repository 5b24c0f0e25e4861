"""The layers that the condition puts in place of a network's own, and the plain ones that they fold into."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.fold import AffineLayer
from floats_edge.method.knob import Knob
from floats_edge.method.plan import Norm, Weighted


class DualNorm(nn.Module):
    """Two BatchNorms: ``clean`` normalises what lambda = 0 computes, ``adv`` everything else; they begin as equals.

    Source: Xie et al., "Adversarial Examples Improve Image Recognition" (CVPR 2020); used by OAT (Wang et al., NeurIPS
    2020) and FLOAT (Kundu et al., arXiv 2204.00426).
    """

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.clean = norm
        self.adv = copy.deepcopy(norm)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return self.clean(x) if lam == 0 else self.adv(x)


class ConditionedLayer(nn.Module):
    """A convolution or linear layer under the condition, with the dual BatchNorm that follows it, if one does.

    Args:
        layer: whose weight becomes theta.
        norm: BatchNorm after it; None: there is none.
        alpha: first value of alpha.
        knob: tells lambda.
    """

    def __init__(self, layer: Weighted, norm: Norm | None, alpha: float, knob: Knob) -> None:
        super().__init__()
        self.weight = ConditionedWeight(cast(nn.Parameter, layer.weight), alpha)
        self.bias = layer.bias
        self.operation = copy.deepcopy(layer, {id(layer.weight): None, id(layer.bias): None})
        """The layer without its parameters."""
        self.norm = None if norm is None else DualNorm(norm)
        self.knob = knob

    def forward(self, x: Tensor) -> Tensor:
        lam = self.knob.lam
        y = _computed(self.operation, x, self.weight(lam), self.bias)
        return y if self.norm is None else self.norm(y, lam)

    def affine(self) -> AffineLayer:
        """The layer as ``method/fold.py`` writes it, tensors on its device."""
        weight = self.weight
        bias = weight.theta.new_zeros(len(weight.theta)) if self.bias is None else self.bias.detach()
        ends = (bias * 0 + 1, bias), (bias * 0 + 1, bias)
        if self.norm is not None:
            ends = _shifted(self.norm.clean, bias), _shifted(self.norm.adv, bias)
        (gain_clean, bias_clean), (gain_adv, bias_adv) = ends
        scale = weight.alpha.detach() * weight.sigma()
        noise = weight.mask * weight.eta
        return AffineLayer(weight.theta.detach(), weight.mask, noise, scale, gain_clean, gain_adv, bias_clean, bias_adv)

    def plain(self) -> Weighted:
        """The ordinary layer that it folds into; its parameters are yet to be set."""
        plain = copy.deepcopy(self.operation)
        plain.weight, plain.bias = _unset(self.weight.theta)
        return plain


def _computed(operation: Weighted, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``operation`` computes with other parameters."""
    if isinstance(operation, nn.Linear):
        return linear(x, weight, bias)
    if torch.is_grad_enabled() and operation.kernel_size == (1, 1) and operation.padding == (0, 0):
        # A strided 1x1 convolution subsamples first: the same function, without the weight gradient that oneDNN gets
        # wrong, or crashes in, for few channels stored channels last (its issue 6035).
        rows, columns = operation.stride
        return conv2d(x[:, :, ::rows, ::columns], weight, bias, groups=operation.groups)
    return operation._conv_forward(x, weight, bias)


class ConditionedNorm(nn.Module):
    """A dual BatchNorm that follows no convolution alone: it folds into a scale and a shift per channel.

    Args:
        norm: BatchNorm of the network.
        knob: tells lambda.
    """

    def __init__(self, norm: Norm, knob: Knob) -> None:
        super().__init__()
        self.norm = DualNorm(norm)
        self.knob = knob

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self.knob.lam)

    def affine(self) -> AffineLayer:
        """The layer as ``method/fold.py`` writes it, tensors on its device; theta is one for each channel."""
        (gain_clean, bias_clean), (gain_adv, bias_adv) = _gain_bias(self.norm.clean), _gain_bias(self.norm.adv)
        one = gain_clean * 0 + 1
        return AffineLayer(one, one > 0, one * 0, one.new_zeros(()), gain_clean, gain_adv, bias_clean, bias_adv)

    def plain(self) -> "Scale":
        """What it folds into; its parameters are yet to be set."""
        plain = Scale()
        plain.weight, plain.bias = _unset(_gain_bias(self.norm.adv)[0])
        return plain


class Scale(nn.Module):
    """Scale and shift per channel: what is left of a BatchNorm that follows no convolution alone.

    A product and a sum, not BatchNormalization: that TensorRT cannot refit, as its parser renames the weights. Under
    mixed precision they are computed in float32 and rounded to the precision of ``x``, as BatchNorm does.
    """

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        return (x * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


Conditioned = ConditionedLayer | ConditionedNorm


def _unset(weight: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
    """A weight like ``weight`` and a bias for it, neither of which needs gradients; both are yet to be set."""
    parameters = torch.empty_like(weight), weight.new_empty(len(weight))
    return nn.Parameter(parameters[0], requires_grad=False), nn.Parameter(parameters[1], requires_grad=False)


def _gain_bias(norm: Norm) -> tuple[Tensor, Tensor]:
    """Per-channel ``(gain, bias)`` of a BatchNorm in inference mode: ``y = gain * x + bias``."""
    assert norm.running_mean is not None, "a plan conditions no BatchNorm without running statistics"
    assert norm.running_var is not None, "as above"
    gain = (norm.running_var + norm.eps).rsqrt()
    bias = norm.running_mean.new_zeros(norm.num_features)
    if norm.affine:
        gain, bias = norm.weight.detach() / (norm.running_var + norm.eps).sqrt(), norm.bias.detach()
    return gain, bias - norm.running_mean * gain


def _shifted(norm: Norm, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The same of a BatchNorm that normalises what a layer with ``bias`` computes."""
    gain, shift = _gain_bias(norm)
    return gain, shift + bias * gain
