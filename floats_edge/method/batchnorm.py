"""Dual BatchNorm: separate statistics and affine parameters for clean and for adversarial activations.

Source: Xie et al., "Adversarial Examples Improve Image Recognition" (CVPR 2020); used by OAT (Wang et al., NeurIPS
2020) and FLOAT (Kundu et al., arXiv 2204.00426).
"""
# pyright: reportPrivateImportUsage=false

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from floats_edge.method.plan import Norm


class DualNorm(nn.Module):
    """``clean`` normalises what lambda = 0 computes, ``adv`` everything else; they begin as equals.

    Args:
        norm: BatchNorm of a network, of which the clean one is made.
    """

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.clean = norm
        self.adv = copy.deepcopy(norm)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return self.clean(x) if lam == 0 else self.adv(x)


def gains_and_biases(
    norms: Sequence[Norm | None], ones: Sequence[Tensor], zeros: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Per channel, of BatchNorms in inference mode, one behind the other: ``y = gain * x + bias``.

    Args:
        norms: the BatchNorms; None: one that changes nothing.
        ones: for each of them, one for each channel.
        zeros: likewise.
    """
    parts = [_statistics(*each) for each in zip(norms, ones, zeros, strict=True)]
    weights, biases, means, variances = zip(*parts, strict=True)
    shifted = torch._foreach_add(variances, [0.0 if norm is None else norm.eps for norm in norms])
    gain = torch.cat(weights) / torch.cat(shifted).sqrt()
    return gain, torch.cat(biases) - torch.cat(means) * gain


def _statistics(norm: Norm | None, one: Tensor, zero: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(weight, bias, mean, variance)``."""
    if norm is None:
        return one, zero, zero, one
    assert norm.running_mean is not None, "a plan takes no BatchNorm without running statistics"
    assert norm.running_var is not None, "as above"
    weight, bias = (norm.weight, norm.bias) if norm.affine else (one, zero)
    return weight, bias, norm.running_mean, norm.running_var


SETTLING = 16
"""Batches of attacked training images on which the adversarial statistics of a network are estimated anew."""


@torch.no_grad()
def reestimate(network: nn.Module, forward: Callable[[], object]) -> None:
    """Replace the adversarial running statistics of ``network`` by the mean over what ``forward`` sends through it.

    It is in training mode meanwhile, and afterwards as before, also if ``forward`` raises.
    """
    norms = [module.adv for module in network.modules() if isinstance(module, DualNorm)]
    momenta, training = [norm.momentum for norm in norms], network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    try:
        forward()
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(training)
