"""OAT's layers: FiLM after BatchNorm, told lambda by an encoding.

Source: Wang et al., "Once-for-All Adversarial Training" (NeurIPS 2020), and the repository published with it, whose
networks have no FiLM on the projections of shortcuts and none before the classifier.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from floats_edge.method.batchnorm import DualNorm
from floats_edge.method.plan import Norm


@dataclass(frozen=True)
class EncodedLambda:
    """The lambdas of a batch, those that are zero first.

    Attributes:
        code: what FiLM reads, ``[N, dimensions]``, or ``[1, dimensions]`` for one lambda.
        zeros: how many images have lambda = 0.
    """

    code: Tensor
    zeros: int


class Told:
    """What all FiLM layers of a network read, so that no forward has to pass it on."""

    lam: EncodedLambda


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
        scale, shift = leaky_relu(self.output(leaky_relu(self.hidden(code)))).chunk(2, dim=1)
        shape = (*scale.shape, *[1] * (x.ndim - 2))
        return x * scale.view(shape) + shift.view(shape)


class FilmNorm(nn.Module):
    """BatchNorm and, unless it has none, FiLM.

    Args:
        norm: BatchNorm of a network; with ``dual`` the one of lambda = 0, and a copy of it that of all others.
        channels: of what is normalised.
        dual: whether there are two of them.
        dimensions: length of the code; None: no FiLM.
        told: the lambdas of the batch.
    """

    def __init__(self, norm: Norm, channels: int, dual: bool, dimensions: int | None, told: Told) -> None:
        super().__init__()
        self.norm = DualNorm(norm) if dual else norm
        self.film = None if dimensions is None else Film(channels, dimensions)
        self.told = told

    def forward(self, x: Tensor) -> Tensor:
        lam = self.told.lam
        x = _mixed(self.norm, x, lam.zeros) if isinstance(self.norm, DualNorm) else self.norm(x)
        return x if self.film is None else self.film(x, lam.code)


def _mixed(norm: DualNorm, x: Tensor, zeros: int) -> Tensor:
    """``x``, whose first ``zeros`` images have lambda = 0, through a dual BatchNorm."""
    if zeros == 0:
        return norm.adv(x)
    if zeros == len(x):
        return norm.clean(x)
    return torch.cat((norm.clean(x[:zeros]), norm.adv(x[zeros:])))
