"""What a trained network costs: parameters, arithmetic and bytes, counted on the network itself."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.files import Tensors, pack_tensors
from floats_edge.artifacts.study import Complexity
from floats_edge.artifacts.weights import pack_weights
from floats_edge.baselines.oat import OatNetwork
from floats_edge.method.fold import AffineLayers, clean_weights
from floats_edge.method.layers import Layers
from floats_edge.networks.spec import NO_CODE, Code
from floats_edge.runtime.torch import deployed_network, trained_network


def complexity(run: TrainingRun, code: Code = NO_CODE) -> Complexity:
    """Count the network of a finished run, without the channels that were cut."""
    trained, shape = trained_network(run, code), run.checkpoint.images.shape
    parameters = sum(parameter.numel() for parameter in trained.network.parameters())
    if isinstance(network := trained.network, OatNetwork):
        macs = layer_macs(lambda images: network(images, 0.0), shape)[""]
        size = len(pack_tensors(_of_oat(run)))
        return Complexity(parameters=parameters, nonzeros=parameters, macs=macs, nonzero_macs=macs, bytes=size)
    served = deployed_network(run, code)
    parameters -= _removed(trained.layers, served.layers)
    masks = {name: layer.mask for name, layer in served.layers.items() if not layer.mask.all()}
    macs = layer_macs(served.network, shape)
    idle = sum(macs[name] * (1 - float(mask.mean())) for name, mask in masks.items())
    return Complexity(
        parameters=parameters,
        nonzeros=parameters - sum(int((~mask).sum()) for mask in masks.values()),
        macs=macs[""],
        nonzero_macs=round(macs[""] - idle),
        bytes=len(pack_tensors(_of_layers(run, served.layers))),
    )


def _removed(trained: Layers, served: AffineLayers) -> int:
    """How many parameters the channels had that were removed: weights, and one of each kind for every channel."""
    removed = 0
    for name, layer in served.items():
        if layer.drawn is None:
            continue
        unit = trained[name]
        assert isinstance(unit, nn.Module), "only conditioned layers lose channels"
        of_a_channel = sum(parameter.ndim == 1 for parameter in unit.parameters())
        removed += of_a_channel * (len(layer.drawn) - len(layer.theta))
        removed += layer.drawn.size - layer.theta.size if layer.theta.ndim > 1 else 0
    return removed


@torch.no_grad()
def layer_macs(network: Callable[[Tensor], object], image_shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-accumulates of one image by module, those inside it included; the whole network's under ``""``.

    Convolutions and matrix products count, as torch counts them; what is added per element does not.
    """
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *image_shape))
    counts = {path: sum(flops.values()) // 2 for path, flops in counter.get_flop_counts().items()}
    return {path.partition(".")[2]: count for path, count in counts.items() if path != "Global"}


def _of_oat(run: TrainingRun) -> Tensors:
    return {name: array for name, array in run.weights().items() if not name.endswith("num_batches_tracked")}


def _of_layers(run: TrainingRun, layers: AffineLayers) -> Tensors:
    """The tensors that serve every lambda; those of a plain network serve any."""
    if run.checkpoint.recipe.method == "float":
        return pack_weights(layers)
    return {name: np.asarray(array) for name, array in clean_weights(layers).items()}
