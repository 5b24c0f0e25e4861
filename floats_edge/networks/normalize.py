"""The normalisation of images, inside a network, so that no caller can get it wrong."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.networks.spec import NetworkSpec

_MEAN, _STD = "image_mean", "image_std"


def normalize(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let ``network`` take images in [0, 1] and normalise them, ``(x - mean) / std`` per channel, before its forward.

    A hook before its forward does it, with two buffers of the network's own, ``image_mean`` and ``image_std``: no layer
    changes its name, and a network that runs its children one after the other does not run a further one.

    Raises:
        NetworkError: the network normalises already, or has something else of that name.
    """
    for name, values in ((_MEAN, mean), (_STD, std)):
        if hasattr(network, name):
            raise NetworkError(
                f"the network has an attribute {name!r}, where the normalisation of images is to stand.",
                fix="normalise a network once, and name nothing in it so",
            )
        network.register_buffer(name, torch.tensor(tuple(values)).view(1, -1, 1, 1))
    network.register_forward_pre_hook(_normalized)


def _normalized(network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *others = args
    mean, std = cast(Tensor, getattr(network, _MEAN)), cast(Tensor, getattr(network, _STD))
    return (images - mean) / std, *others


def pretrained_statistics(spec: NetworkSpec) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation per channel of the images that the published weights of a network expect.

    They are those of the library's own weights: torchvision's default ones, timm's of the tag in the name. None where
    no library says so, as for networks of our own or of a user.
    """
    if spec.source == "torchvision":
        from torchvision.models import get_model_weights

        known: Any = next(iter(get_model_weights(spec.name))).transforms()
    elif spec.source == "timm":
        from timm.models import get_pretrained_cfg

        known = get_pretrained_cfg(spec.name)
    else:
        return None
    if not getattr(known, "mean", None) or not getattr(known, "std", None):
        return None
    return tuple(map(float, known.mean)), tuple(map(float, known.std))
