"""Weights that depend on lambda: ``W(lam) = m * (theta + lam * alpha * sigma * eta)``.

Source: FLOAT, Kundu et al., arXiv 2204.00426; parametrised noise (``alpha`` trained, ``sigma`` the standard deviation
of the weights) goes back to parametric noise injection, He et al., CVPR 2019.
"""
# pyright: reportPrivateImportUsage=false

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from floats_edge.method.noise import standard_normal

INITIAL_ALPHA = 0.25


class ConditionedWeight(nn.Module):
    """One weight tensor under the condition: theta, alpha (trained), mask and frozen noise eta.

    Invariant: theta is zero outside ``mask`` (training keeps it so). Only the noise is multiplied by the mask in the
    forward pass, hence ``theta.grad`` is the *dense* gradient that FLOATS regrows weights by.

    Args:
        theta: the weight at lambda 0.
        alpha: first value of alpha.
    """

    mask: Tensor
    eta: Tensor
    drawn: Tensor | None
    """Where channels were removed: bool, of the shape that noise is drawn for, the weights left."""
    places: Tensor | None
    """Where channels were removed: of each weight left, its place among those that noise is drawn for."""

    def __init__(self, theta: nn.Parameter, alpha: float = INITIAL_ALPHA) -> None:
        super().__init__()
        self.theta = theta
        self.alpha = nn.Parameter(theta.new_tensor(alpha))
        self.register_buffer("mask", torch.ones_like(theta, dtype=torch.bool))
        self.register_buffer("eta", torch.zeros_like(theta, requires_grad=False), persistent=False)
        self.register_buffer("drawn", None, persistent=False)
        self.register_buffer("places", None, persistent=False)

    def draw_for(self, drawn: Tensor) -> None:
        """From now on take the noise of the weights that are left out of a draw for all: see :attr:`drawn`."""
        self.drawn, self.places = drawn, drawn.flatten().nonzero().view(self.eta.shape)

    @property
    def whole(self) -> Tensor:
        """A tensor of the shape that the weight had before channels were removed."""
        return self.eta if self.drawn is None else self.drawn

    def draw_noise(self, seed: int, layer_index: int) -> None:
        """Set ``eta`` to the frozen draw of this layer."""
        self.set_noise(torch.from_numpy(standard_normal(seed, layer_index, tuple(self.whole.shape))))

    def resample_noise(self, generator: torch.Generator) -> None:
        """Set ``eta`` to a fresh draw from ``generator``, which is on its device."""
        self.set_noise(torch.empty_like(self.whole, dtype=self.eta.dtype).normal_(generator=generator))

    def set_noise(self, noise: Tensor) -> None:
        """Set ``eta`` to what is left of ``noise``, which is of the shape of :attr:`whole`."""
        self.eta.copy_(noise if self.places is None else noise.take(self.places.to(noise.device)))

    @torch.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """Adopt ``mask`` (bool, shape of theta) and clear the weights outside it."""
        self.mask.copy_(mask)
        self.theta.mul_(self.mask)

    def sigma(self) -> Tensor:
        """Standard deviation of theta over its unmasked entries, detached: a scalar."""
        return sigmas([self])[0]

    def forward(self, lam: float) -> Tensor:
        """``W(lam)``, differentiable in theta and alpha."""
        if lam == 0:
            return self.theta
        return self.theta + (lam * self.alpha * self.sigma()) * (self.mask * self.eta)


def sigmas(weights: Sequence[ConditionedWeight]) -> tuple[Tensor, ...]:
    """Standard deviation of each theta over its unmasked entries, detached: a scalar each.

    The mean is found first, for the difference of two large squares would lose a small deviation.
    """
    thetas, masks = [weight.theta.detach() for weight in weights], [weight.mask for weight in weights]
    counts = [mask.sum() for mask in masks]
    means = torch._foreach_div([theta.sum() for theta in thetas], counts)
    squares = torch._foreach_sub(thetas, means)
    torch._foreach_mul_(squares, masks)
    torch._foreach_mul_(squares, squares)
    return torch._foreach_sqrt(torch._foreach_div([square.sum() for square in squares], counts))


def scaled_noise(weights: Sequence[ConditionedWeight]) -> dict[ConditionedWeight, tuple[Tensor, Tensor]]:
    """Of each weight its noise ``m * eta``, and ``alpha * sigma``, by which lambda 1 takes it."""
    if not weights:
        return {}
    noise = torch._foreach_mul([weight.eta for weight in weights], [weight.mask for weight in weights])
    scales = torch._foreach_mul([weight.alpha for weight in weights], sigmas(weights))
    return dict(zip(weights, zip(noise, scales, strict=True), strict=True))


def conditioned_weights(network: nn.Module) -> dict[str, ConditionedWeight]:
    """The conditioned weights of a network by layer name: what noise and masks apply to, no BatchNorm."""
    return {
        name.removesuffix(".weight"): module
        for name, module in network.named_modules()
        if isinstance(module, ConditionedWeight)
    }


def resample_noise(network: nn.Module, generator: torch.Generator) -> None:
    """Give every conditioned weight fresh noise from ``generator``, which is on its device."""
    for weight in conditioned_weights(network).values():
        weight.resample_noise(generator)


@torch.no_grad()
def fix_alpha(network: nn.Module, alpha: float) -> None:
    """Set every alpha, and train none of them."""
    for weight in conditioned_weights(network).values():
        weight.alpha.fill_(alpha).requires_grad_(False)
