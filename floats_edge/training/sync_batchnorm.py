"""BatchNorm over the images of all workers; torch's own SyncBatchNorm runs on GPUs only."""

from typing import Any

import torch
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.method.plan import Norm
from floats_edge.training.distributed import Workers


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm whose statistics in training are those of the workers' images together.

    Takes over the parameters and statistics of ``norm``. In inference mode it is ``norm``. The workers may send
    different numbers of images through it, but each must call it as often as the others, forward and backward.

    Args:
        norm: to be replaced.
        workers: who train together.
    """

    def __init__(self, norm: nn.BatchNorm2d, workers: Workers) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.workers = workers

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(self.weight.dtype)  # half precision is summed in float32, as nn.BatchNorm2d does
        mean, variance, count = self._moments(x)
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None]).to(input.dtype)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per-channel mean and (biased) variance of all workers' ``x``, and over how many values each.

        One sum over the workers serves both. It is taken of deviations from the running mean, for the variance is
        then not a small difference of large numbers.
        """
        assert self.running_mean is not None
        origin = self.running_mean.clone()
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        moved = mean - origin
        count = x.new_full((1,), x.numel() // x.shape[1])
        sums = _Sum.apply(torch.cat((moved * count, (variance + moved.square()) * count, count)), self.workers)
        first, second, total = sums.split((self.num_features, self.num_features, 1))
        moved = first / total
        return origin + moved, (second / total - moved.square()).clamp_min(0), total.detach()

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics as ``nn.BatchNorm2d`` does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        part = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(variance, part)


class _Sum(torch.autograd.Function):
    """The sum over the workers, which every worker's loss depends on: so its gradient is a sum over them, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, workers: Workers) -> Tensor:
        ctx.workers = workers
        return workers.sum(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.workers.sum(grads[0]), None


def synchronize_batchnorm(network: nn.Module, workers: Workers) -> None:
    """Replace every BatchNorm of ``network`` by one over all workers; names and values in its state stay.

    Raises:
        NetworkError: one is of another kind than ``nn.BatchNorm2d``.
    """
    if workers.size == 1:
        return
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SyncBatchNorm2d(child, workers))
            elif isinstance(child, Norm):
                raise NetworkError(
                    f"the network holds a {type(child).__name__}, whose statistics several workers cannot share.",
                    fix="train in one process, or use nn.BatchNorm2d",
                )
