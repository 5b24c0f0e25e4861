"""From a :class:`ModelSpec` and a layer kind to a network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from floats_edge.models.layers import FLOAT, PLAIN, Layers, film
from floats_edge.models.oat import OatNetwork
from floats_edge.models.resnet import ResNet
from floats_edge.models.spec import WIDE, Method, ModelSpec, Oat
from floats_edge.models.wide_resnet import WideResNet


def build(spec: ModelSpec, layers: Layers, seed: int = 0) -> nn.Module:
    """Build the network ``spec`` describes, channels last; ``seed`` decides its initial weights.

    With :data:`~floats_edge.models.layers.FOLDED` it is the network as deployed, the one that training and evaluation
    attack and that is exported; its weights are loaded for one lambda at a time.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw from the global generator, which is the caller's
        torch.default_generator.manual_seed(seed)
        network = (WideResNet if spec.arch in WIDE else ResNet)(spec, layers)
    return network.to(memory_format=torch.channels_last)


def build_method(spec: ModelSpec, method: Method, oat: Oat, seed: int) -> nn.Module:
    """Build the network that ``method`` trains.

    Args:
        spec: its topology.
        method: that trains it.
        oat: read by that method only.
        seed: of the initial weights, and of OAT's encoding.
    """
    if method == "oat":
        dimensions = 1 if oat.encoding == "none" else oat.dimensions
        return OatNetwork(build(spec, film(oat.batchnorm, dimensions), seed), oat, seed)
    return build(spec, FLOAT if method == "float" else PLAIN, seed)


@torch.no_grad()
def load_weights(folded: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy plain weights, named as in :mod:`floats_edge.method.fold`, into a folded network; all must be given."""
    parameters = dict(folded.named_parameters())
    assert parameters.keys() == weights.keys(), sorted(parameters.keys() ^ weights.keys())
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
