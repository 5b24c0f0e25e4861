"""What a trained network costs: parameters, arithmetic and bytes, counted on the network itself."""

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.files import Tensors, pack_tensors
from floats_edge.artifacts.study import Complexity
from floats_edge.artifacts.weights import pack_weights
from floats_edge.method.fold import AffineLayers, clean_weights
from floats_edge.models.build import build, build_method
from floats_edge.models.layers import FOLDED
from floats_edge.runtime.torch import deployed_layers


def complexity(run: TrainingRun) -> Complexity:
    """Count the network of a finished run, without the channels that were cut."""
    recipe = run.checkpoint.recipe
    layers, spec = ({}, run.checkpoint.model) if recipe.method == "oat" else deployed_layers(run)
    network = build_method(spec, recipe.method, recipe.oat, seed=0).eval()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    masks = {name: layer.mask for name, layer in layers.items() if not layer.mask.all()}
    masked = sum(int((~mask).sum()) for mask in masks.values())
    macs = layer_macs(build(spec, FOLDED) if layers else network, spec.image_shape)
    idle = sum(macs[name] * (1 - float(mask.mean())) for name, mask in masks.items())
    return Complexity(
        parameters=parameters,
        nonzeros=parameters - masked,
        macs=macs[""],
        nonzero_macs=round(macs[""] - idle),
        bytes=len(pack_tensors(_served(run, layers))),
    )


@torch.no_grad()
def layer_macs(network: nn.Module, image_shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-accumulates of one image by module, those inside it included; the whole network's under ``""``.

    Convolutions and matrix products count, as torch counts them; what is added per element does not.
    """
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *image_shape), 0.0)
    counts = {path: sum(flops.values()) // 2 for path, flops in counter.get_flop_counts().items()}
    return {path.partition(".")[2]: count for path, count in counts.items() if path != "Global"}


def _served(run: TrainingRun, layers: AffineLayers) -> Tensors:
    """The tensors that serve every lambda."""
    method = run.checkpoint.recipe.method
    if method == "oat":
        return {name: array for name, array in run.weights().items() if not name.endswith("num_batches_tracked")}
    if method == "float":
        return pack_weights(layers)
    return {name: np.asarray(array) for name, array in clean_weights(layers).items()}
