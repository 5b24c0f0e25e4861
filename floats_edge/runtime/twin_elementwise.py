"""The operations of a twin that work number by number."""

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from floats_edge.runtime.graph_rules import Node
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_tensors import ELEMENTS, Maker, Run, on_one_device, plain, together

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _of_all(function: Callable[[Tensor, Tensor], Tensor]) -> Maker:
    """An operation on two tensors or more, from left to right."""
    return plain(lambda *tensors: reduce(function, together(*tensors)))


def _divide(left: Tensor, right: Tensor) -> Tensor:
    return torch.div(left, right, rounding_mode=None if left.is_floating_point() else "trunc")


def _mean(*tensors: Tensor) -> Tensor:
    return reduce(torch.add, together(*tensors)) / len(tensors)


def _modulo(node: Node) -> Run:
    """Of the divisor's sign, or as C's ``fmod``, which is the only one that ONNX has of floats."""
    as_in_c = node.attributes.get("fmod", 0)

    def run(left: Tensor, right: Tensor) -> Tensor:
        if left.is_floating_point() and not as_in_c:
            raise GraphError("has a Mod of floats without fmod")
        return (torch.fmod if as_in_c else torch.remainder)(*together(left, right))

    return run


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(*on_one_device(base, exponent)).to(base.dtype)


def _where(condition: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return torch.where(*on_one_device(condition, *together(left, right)))


def _clip(x: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
    """As ReLU6 where it can be, of which PyTorch computes gradients faster than of a clamp."""
    low, high = (None if bound is None else together(bound, x)[0].item() for bound in (least, most))
    if low is None and high is None:
        return x
    if x.is_floating_point() and (low is None or high is None or low < high):
        return functional.hardtanh(x, -math.inf if low is None else low, math.inf if high is None else high)
    return torch.clamp(x, low, high)


def _cast(node: Node) -> Run:
    """Between ONNX's types of floats there is nothing to do: a twin computes all of them in float32."""
    element = node.attributes.get("to")
    if element not in ELEMENTS:
        raise GraphError(f"has a Cast to type {element}, which no export writes")
    return lambda x: x.to(ELEMENTS[element])


def _celu(node: Node) -> Run:
    alpha = node.attributes.get("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


def _elu(node: Node) -> Run:
    alpha = node.attributes.get("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


def _gelu(node: Node) -> Run:
    approximate = node.attributes.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


def _hard_sigmoid(node: Node) -> Run:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def _leaky_relu(node: Node) -> Run:
    alpha = node.attributes.get("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _selu(node: Node) -> Run:
    alpha, gamma = node.attributes.get("alpha", _SELU_ALPHA), node.attributes.get("gamma", _SELU_GAMMA)
    return lambda x: gamma * functional.elu(x, alpha)


def _thresholded_relu(node: Node) -> Run:
    alpha = node.attributes.get("alpha", 1.0)
    return lambda x: functional.threshold(x, alpha, 0.0)


ELEMENTWISE: dict[str, Maker] = {
    "Abs": plain(torch.abs),
    "Add": _of_all(torch.add),
    "And": _of_all(torch.logical_and),
    "Cast": _cast,
    "CastLike": plain(lambda x, like: x.to(like.dtype)),
    "Ceil": plain(torch.ceil),
    "Celu": _celu,
    "Clip": plain(_clip),
    "Cos": plain(torch.cos),
    "Div": _of_all(_divide),
    "Elu": _elu,
    "Equal": _of_all(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gelu": _gelu,
    "Greater": _of_all(torch.gt),
    "GreaterOrEqual": _of_all(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": plain(functional.hardswish),
    "Identity": plain(lambda x: x),
    "IsNaN": plain(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _of_all(torch.lt),
    "LessOrEqual": _of_all(torch.le),
    "Log": plain(torch.log),
    "Max": _of_all(torch.maximum),
    "Mean": plain(_mean),
    "Min": _of_all(torch.minimum),
    "Mish": plain(functional.mish),
    "Mod": _modulo,
    "Mul": _of_all(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": _of_all(torch.logical_or),
    "PRelu": plain(_prelu),
    "Pow": plain(_power),
    "Reciprocal": plain(torch.reciprocal),
    "Relu": plain(torch.relu),
    "Round": plain(torch.round),
    "Selu": _selu,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Softplus": plain(functional.softplus),
    "Softsign": plain(functional.softsign),
    "Sqrt": plain(torch.sqrt),
    "Sub": _of_all(torch.sub),
    "Sum": _of_all(torch.add),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": plain(_where),
    "Xor": _of_all(torch.logical_xor),
}
"""Makers by the name of the operation."""
