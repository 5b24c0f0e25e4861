"""timm's classifiers, if it is installed, and what its own layers begin with."""

import copy
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from floats_edge.errors import NetworkError, add_extra
from floats_edge.method.plan import Parts, Register
from floats_edge.networks.construct import construct, unknown
from floats_edge.networks.spec import NetworkSpec

_FILES_AND_DOWNLOADS = ("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def from_timm(spec: NetworkSpec, classes: int, channels: int) -> nn.Module:
    """A classifier of timm with weights drawn at random; nothing is downloaded.

    Raises:
        NetworkError: timm is not installed or has no such classifier, or it takes no such arguments.
    """
    timm = _timm()
    if not timm.is_model(spec.name):
        raise unknown(spec, timm.list_models())
    given = {"num_classes": classes, "in_chans": channels, "pretrained": False, **dict.fromkeys(_FILES_AND_DOWNLOADS)}
    return construct(spec, partial(timm.create_model, spec.name), given)


def timm_layers() -> Register:
    """How timm's own layers begin: its BatchNorms with an activation, and its linear layer.

    Its convolutions that compute their weight or padding anew for each image (``ScaledStdConv2d``, ``Conv2dSame``)
    begin with no ordinary layer.

    Raises:
        NetworkError: timm is not installed.
    """
    layers = _timm().layers
    return {
        layers.BatchNormAct2d: _batchnorm,
        layers.SyncBatchNormAct: _batchnorm,
        layers.Linear: lambda layer: (_as(nn.Linear, layer), None),
    }


def _batchnorm(layer: Any) -> Parts:
    kind = nn.SyncBatchNorm if isinstance(layer, nn.SyncBatchNorm) else nn.BatchNorm2d
    inside = dict(layer.named_children())
    after = [inside[name] for name in ("drop", "act") if not isinstance(inside.get(name, nn.Identity()), nn.Identity)]
    return _as(kind, layer), nn.Sequential(*after) if after else None


def _as(kind: type[Any], layer: nn.Module) -> Any:
    """A layer as one of the class of ``torch.nn`` that its own is derived from, with the same tensors."""
    plain = copy.copy(layer)
    plain.__class__ = kind
    plain._parameters, plain._buffers, plain._modules = layer._parameters.copy(), layer._buffers.copy(), {}
    return plain


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise NetworkError(f"networks of timm need timm: {error}.", fix=add_extra("timm")) from error
    return timm
