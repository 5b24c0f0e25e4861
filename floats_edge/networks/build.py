"""From a :class:`NetworkSpec` to an ordinary module."""

import copy
import sys
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from floats_edge.errors import NetworkError
from floats_edge.method.network_check import check_parameters
from floats_edge.method.plan import Register
from floats_edge.networks.construct import construct, unknown
from floats_edge.networks.from_python import from_python
from floats_edge.networks.from_timm import from_timm, timm_layers
from floats_edge.networks.from_torchvision import from_torchvision
from floats_edge.networks.layers import Projection, as_convolution
from floats_edge.networks.resnet import DEPTHS, ResNet
from floats_edge.networks.spec import NO_CODE, Code, NetworkSpec, Source
from floats_edge.networks.wide_resnet import WIDE, WideResNet

BUILTIN: Mapping[str, Callable[..., nn.Module]] = {
    **{name: partial(ResNet, depths) for name, depths in DEPTHS.items()},
    **{name: partial(WideResNet, depths, factor) for name, (depths, factor) in WIDE.items()},
}


def build(spec: NetworkSpec, classes: int, channels: int, code: Code = NO_CODE) -> nn.Module:
    """The network that ``spec`` names, with random weights from torch's global generator.

    Its pretrained weights are not loaded: see :func:`~floats_edge.networks.weights.load_weights`.

    Args:
        spec: names it.
        classes: of the logits ``[N, classes]``.
        channels: of the images ``[N, channels, H, W]``.
        code: of the user's that stands for the network.

    Raises:
        NetworkError: there is no such network, it is not allowed to be imported, or its arguments do not fit.
    """
    if spec.source == "given":
        network = _given(spec, code)
    elif spec.source == "python" and not code.allowed:
        raise NetworkError(
            f"the network is what {spec.name} returns: code that floats-edge runs only if you allow it.",
            fix="read that code; if you trust it, add --allow-code, or allow_code=True in Python",
        )
    else:
        network = _SOURCES[spec.source](spec, classes, channels)
    check_parameters(network)
    return network


def register(spec: NetworkSpec) -> Register:
    """How layers of the source's own classes begin; code of a user may have made some of timm."""
    if spec.source == "builtin":
        return {Projection: as_convolution}
    uses_timm = spec.source == "timm" or (spec.source in ("python", "given") and "timm" in sys.modules)
    return timm_layers() if uses_timm else {}


def _given(spec: NetworkSpec, code: Code) -> nn.Module:
    if code.module is None:
        raise NetworkError(
            f"the network is a {spec.name} that was handed over in Python, and is none of a library.",
            fix="hand it over again, with module=..., to floats_edge.train, evaluate or export",
        )
    return copy.deepcopy(code.module)


def _builtin(spec: NetworkSpec, classes: int, channels: int) -> nn.Module:
    if spec.name not in BUILTIN:
        raise unknown(spec, BUILTIN)
    return construct(spec, BUILTIN[spec.name], {"classes": classes, "channels": channels})


_SOURCES: Mapping[Source, Callable[[NetworkSpec, int, int], nn.Module]] = {
    "builtin": _builtin,
    "torchvision": from_torchvision,
    "timm": from_timm,
    "python": from_python,
}
