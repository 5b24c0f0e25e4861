"""torchvision's classifiers, if it is installed."""

import copy
from collections.abc import Mapping
from functools import partial

from torch import nn

from floats_edge.errors import NetworkError, add_extra
from floats_edge.networks.construct import construct, unknown
from floats_edge.networks.spec import NetworkSpec

_ONE_OUTPUT: Mapping[str, Mapping[str, object]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}
"""Networks that in training would give the logits of auxiliary heads, too."""


def from_torchvision(spec: NetworkSpec, classes: int, channels: int) -> nn.Module:
    """A classifier of torchvision with weights drawn at random, without auxiliary heads.

    For images of another number of channels than 3 its first convolution is made anew.

    Raises:
        NetworkError: torchvision is not installed or has no such classifier, or it takes no such arguments.
    """
    try:
        import torchvision
    except ImportError as error:
        raise NetworkError(f"{spec.title} needs torchvision: {error}.", fix=add_extra("train")) from None
    names = torchvision.models.list_models(module=torchvision.models)
    if spec.name not in names:
        raise unknown(spec, names)
    given = {"weights": None, "num_classes": classes, **_ONE_OUTPUT.get(spec.name, {})}
    network = construct(spec, partial(torchvision.models.get_model, spec.name), given)
    if channels != 3:
        _take_channels(network, channels)
    return network


def _take_channels(network: nn.Module, channels: int) -> None:
    name, old = next(
        ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), ("", None)
    )
    if old is None or old.in_channels != 3:
        raise NetworkError(
            f"the network takes images of 3 channels, not of {channels}.", fix="use colour images or another network"
        )
    new = copy.deepcopy(old)
    new.in_channels = channels
    new.weight = nn.Parameter(old.weight.new_empty(len(old.weight), channels, *old.kernel_size))
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)
