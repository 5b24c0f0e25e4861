"""What a trained network costs: parameters, arithmetic and bytes, counted on the network itself."""

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.files import Tensors, pack_tensors
from floats_edge.artifacts.study import Complexity
from floats_edge.artifacts.weights import pack_weights
from floats_edge.method.conditioning import conditioned_weights
from floats_edge.method.fold import clean_weights
from floats_edge.models.build import build
from floats_edge.models.layers import FOLDED
from floats_edge.runtime.torch import trained_layers, trained_network


def complexity(run: TrainingRun) -> Complexity:
    """Count the network of a finished run."""
    checkpoint = run.checkpoint
    network = trained_network(run)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    masks = {name: weight.mask for name, weight in conditioned_weights(network).items()}
    masked = sum(int((~mask).sum()) for mask in masks.values())
    folds = checkpoint.recipe.method != "oat"
    macs = layer_macs(build(checkpoint.model, FOLDED) if folds else network, checkpoint.model.image_shape)
    idle = sum(macs[name] * (1 - mask.float().mean().item()) for name, mask in masks.items())
    return Complexity(
        parameters=parameters,
        nonzeros=parameters - masked,
        macs=macs[""],
        nonzero_macs=round(macs[""] - idle),
        bytes=len(pack_tensors(_served(run))),
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


def _served(run: TrainingRun) -> Tensors:
    """The tensors that serve every lambda."""
    method = run.checkpoint.recipe.method
    if method == "oat":
        return {name: array for name, array in run.weights().items() if not name.endswith("num_batches_tracked")}
    layers = trained_layers(run)
    if method == "float":
        return pack_weights(layers)
    return {name: np.asarray(array) for name, array in clean_weights(layers).items()}
