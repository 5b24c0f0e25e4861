"""How a network of any source is made from the arguments of a recipe, and what a person is told where that fails."""

import difflib
from collections.abc import Callable, Iterable, Mapping

from torch import nn

from floats_edge.errors import NetworkError
from floats_edge.networks.spec import NetworkSpec


def construct(spec: NetworkSpec, factory: Callable[..., object], given: Mapping[str, object]) -> nn.Module:
    """Call ``factory`` with the arguments of ``spec`` and with those that floats-edge itself gives.

    Raises:
        NetworkError: the arguments are not those of the factory, or it makes no module.
    """
    twice = sorted(given.keys() & spec.arguments.keys())
    if twice:
        raise NetworkError(
            f"{spec.title}: {', '.join(twice)} cannot be given as an argument.",
            fix="remove it from model.arguments; the data say how many classes and channels there are, and pretrained "
            "tensors come from the file that model.weights names",
        )
    arguments = {**given, **spec.arguments}
    call = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if value is not None)
    try:
        network = factory(**arguments)
    except Exception as error:
        raise NetworkError(
            f"{spec.title} cannot be built: {type(error).__name__}: {error}",
            fix=f"it is called with ({call}): correct model.arguments",
        ) from error
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"{spec.title} gives a {type(network).__name__}, not a network.", fix="name what returns a torch.nn.Module"
        )
    return network


def unknown(spec: NetworkSpec, names: Iterable[str]) -> NetworkError:
    """The error of a name that is none of ``names``."""
    names = sorted(names)
    near = difflib.get_close_matches(spec.name, names, n=3, cutoff=0.5) or names[:8]
    return NetworkError(
        f"there is no network {spec.name!r} in {spec.source} ({len(names)} others are).",
        fix=f"set model.name to one of its classifiers, as {', '.join(near)}",
    )
