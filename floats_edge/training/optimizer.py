"""The optimiser of a recipe, its learning rate, and what of it a resumed run needs."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from floats_edge.artifacts.files import Tensors
from floats_edge.recipe import Train

SECOND_BETA = 0.999
"""Of AdamW."""

Parameters = Mapping[str, nn.Parameter]


def make_optimizer(parameters: Parameters, train: Train) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW, with weight decay on weights, and on biases, alpha and BatchNorm if told."""
    fewest = 0 if train.decayed == "all" else 2
    decayed = [parameter for parameter in parameters.values() if parameter.ndim >= fewest]
    others = [parameter for parameter in parameters.values() if parameter.ndim < fewest]
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=train.lr, betas=(train.momentum, SECOND_BETA))
    return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, train: Train, progress: float) -> float:
    """Linear warm-up to the recipe's peak, then cosine to 0; ``progress`` is the share of the run, in [0, 1)."""
    if progress < train.warmup:
        rate = train.lr * progress / train.warmup
    else:
        rate = train.lr * 0.5 * (1 + math.cos(math.pi * (progress - train.warmup) / (1 - train.warmup)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def remembered(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter, to save."""
    return {
        f"{entry}/{name}": optimizer.state[parameter].get(entry, _nothing(entry, parameter))
        for name, parameter in parameters.items()
        for entry in _entries(optimizer)
    }


def remember(optimizer: torch.optim.Optimizer, parameters: Parameters, state: Tensors) -> None:
    """Take up what :func:`remembered` gave.

    Raises:
        KeyError: something of it is missing.
    """
    for name, parameter in parameters.items():
        for entry in _entries(optimizer):
            tensor = torch.from_numpy(state[f"{entry}/{name}"])
            optimizer.state[parameter][entry] = _nothing(entry, parameter).copy_(tensor)


def _entries(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", "step") if isinstance(optimizer, torch.optim.AdamW) else ("momentum_buffer",)


def _nothing(entry: str, parameter: nn.Parameter) -> Tensor:
    return torch.zeros(()) if entry == "step" else torch.zeros_like(parameter, requires_grad=False)
