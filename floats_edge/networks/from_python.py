"""Networks of a user's own code."""

import importlib
import sys
from pathlib import Path

from torch import nn

from floats_edge.errors import NetworkError
from floats_edge.networks.construct import construct, unknown
from floats_edge.networks.spec import NetworkSpec


def from_python(spec: NetworkSpec, classes: int, channels: int) -> nn.Module:
    """What a function (or a class) of a user's own module returns: this imports and runs that code.

    The module is one that is installed, or else a file or package in the working directory, which stays in ``sys.path``
    for what the code imports later. The function is called with ``classes=``, ``channels=`` (of the images) and the
    arguments of ``spec``, and returns a network: images ``[N, channels, H, W]`` to logits ``[N, classes]``.

    Raises:
        NetworkError: there is no such function, its module cannot be imported, or the function fails.
    """
    name, _, attributes = spec.name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = importlib.import_module(name)
    except Exception as error:
        raise NetworkError(
            f"{name} cannot be imported: {type(error).__name__}: {error}",
            fix=f"start floats-edge in the folder that holds {name.partition('.')[0]}, or install it with pip",
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise unknown(spec, (f"{name}:{other}" for other, it in vars(found).items() if callable(it)))
        found = getattr(found, attribute)
    if not callable(found):
        raise NetworkError(
            f"{spec.name} is a {type(found).__name__}, which cannot be called.",
            fix="name a function that returns a torch.nn.Module",
        )
    return construct(spec, found, {"classes": classes, "channels": channels})
