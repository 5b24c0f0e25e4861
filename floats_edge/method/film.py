"""OAT, the baseline: FiLM after every BatchNorm, told lambda by an encoding.

Source: Wang et al., "Once-for-All Adversarial Training" (NeurIPS 2020), and the repository published with it, whose
networks have no FiLM on the projections of shortcuts and none before the classifier.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from floats_edge.method.batchnorm import MixedBatchNorm2d, SharedBatchNorm2d
from floats_edge.method.convolution import convolve


@dataclass(frozen=True)
class EncodedLambda:
    """The lambdas of a batch, those that are zero first.

    Attributes:
        code: what FiLM reads, ``[N, dimensions]``, or ``[1, dimensions]`` for one lambda.
        zeros: how many images have lambda = 0.
    """

    code: Tensor
    zeros: int


def encoding_matrix(encoding: str, dimensions: int, seed: int) -> Tensor:
    """One row for each lambda: ``[dimensions, dimensions]``, float32.

    Args:
        encoding: ``random-orthogonal``, ``dct`` (DCT-II, not normalised) or ``onehot``.
        dimensions: length of a row.
        seed: of the random-orthogonal matrix.
    """
    index = np.arange(dimensions)
    if encoding == "onehot":
        matrix = np.eye(dimensions)
    elif encoding == "dct":
        matrix = 2 * np.cos(np.pi * index[:, None] * (2 * index + 1) / (2 * dimensions))
    elif encoding == "random-orthogonal":
        matrix, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))
    else:
        raise ValueError(f"unknown encoding {encoding!r}")
    return torch.from_numpy(matrix.astype(np.float32))


class Film(nn.Module):
    """Scale and shift each channel by a two-layer perceptron of the code (Perez et al., AAAI 2018), as in OAT."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dimensions, 2 * channels)
        self.output = nn.Linear(2 * channels, 2 * channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = leaky_relu(self.output(leaky_relu(self.hidden(code))))[:, :, None, None].chunk(2, dim=1)
        return x * scale + shift


def _batchnorm(kind: str, channels: int) -> nn.Module:
    return MixedBatchNorm2d(channels) if kind == "dual" else SharedBatchNorm2d(channels)


class FilmConv(nn.Module):
    """Convolution, BatchNorm and, unless it is a 1x1 projection, FiLM.

    Args:
        batchnorm: ``dual`` or ``single``.
        dimensions: length of the code.
        in_channels: of the convolution.
        out_channels: of the convolution.
        kernel_size: of the convolution.
        stride: of the convolution.
    """

    def __init__(
        self, batchnorm: str, dimensions: int, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.norm = _batchnorm(batchnorm, out_channels)
        self.film = Film(out_channels, dimensions) if kernel_size > 1 else None
        self.stride = stride
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, lam: EncodedLambda) -> Tensor:
        x = self.norm(convolve(x, self.weight, self.stride), lam.zeros)
        return x if self.film is None else self.film(x, lam.code)


class OatNorm(nn.Module):
    """BatchNorm that neither a convolution precedes nor FiLM follows: the last one, before the classifier.

    Args:
        batchnorm: ``dual`` or ``single``.
        channels: of what is normalised.
    """

    def __init__(self, batchnorm: str, channels: int) -> None:
        super().__init__()
        self.norm = _batchnorm(batchnorm, channels)

    def forward(self, x: Tensor, lam: EncodedLambda) -> Tensor:
        return self.norm(x, lam.zeros)


class FilmNorm(nn.Module):
    """BatchNorm that no convolution precedes, and FiLM: one inside the blocks.

    Args:
        batchnorm: ``dual`` or ``single``.
        dimensions: length of the code.
        channels: of what is normalised.
    """

    def __init__(self, batchnorm: str, dimensions: int, channels: int) -> None:
        super().__init__()
        self.norm = _batchnorm(batchnorm, channels)
        self.film = Film(channels, dimensions)

    def forward(self, x: Tensor, lam: EncodedLambda) -> Tensor:
        return self.film(self.norm(x, lam.zeros), lam.code)
