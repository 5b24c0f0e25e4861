"""OAT's network: FiLM after the BatchNorms of any network, and the encoding that tells them lambda."""

from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from floats_edge.baselines.film import EncodedLambda, FilmNorm, Told, encoding_matrix
from floats_edge.baselines.spec import Oat
from floats_edge.errors import NetworkError
from floats_edge.method.plan import Norm, Plan, Register, plan, split


class OatNetwork(nn.Module):
    """Logits of images at one lambda, or at a lambda for each image; what it learned is served unfolded.

    Args:
        network: any; every BatchNorm of it that runs once becomes one with FiLM, in place.
        example: images that it takes.
        oat: its options.
        seed: of a random encoding, which is saved with the weights.
        register: how layers of classes of its own begin.

    Raises:
        NetworkError: the network has no BatchNorm that FiLM could follow.
    """

    codes: Tensor

    def __init__(
        self, network: nn.Module, example: Tensor, oat: Oat, seed: int, register: Register | None = None
    ) -> None:
        super().__init__()
        self.oat = oat
        self.told = Told()
        self.plan = plan(network, example, register=register)
        _insert(network, self.plan, oat, self.told, register or {})
        self.backbone = network
        lambdas = torch.tensor(oat.lambdas)[:, None]
        matrix = lambdas if oat.encoding == "none" else encoding_matrix(oat.encoding, oat.dimensions, seed)
        self.register_buffer("codes", matrix[: len(oat.lambdas)].clone())

    def forward(self, images: Tensor, lam: float) -> Tensor:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]`` in [0, 1], all at ``lam``.

        Raises:
            ValueError: the encoding knows no such lambda.
        """
        if self.oat.served is None:
            code = self.codes.new_tensor([[lam]])
        elif lam in self.oat.served:
            index = self.oat.served.index(lam)
            code = self.codes[index : index + 1]
        else:
            raise ValueError(f"the encoding knows no lambda {lam:g}")
        self.told.lam = EncodedLambda(code, zeros=len(images) if lam == 0 else 0)
        return self.backbone(images)

    def mixed(self, images: Tensor, choice: Tensor, zeros: int) -> Tensor:
        """Logits of images each at a lambda of its own.

        Args:
            images: those of lambda 0 first.
            choice: position of each image's lambda in ``oat.lambdas``, int64 ``[N]``.
            zeros: how many of them are of lambda 0.
        """
        self.told.lam = EncodedLambda(self.codes[choice], zeros)
        return self.backbone(images)


def _insert(network: nn.Module, made: Plan, oat: Oat, told: Told, register: Register) -> None:
    """Put FiLM after every BatchNorm that a plan found, except those that the options name."""
    norms = [layer.name if layer.kind == "norm" else layer.norm for layer in made.conditioned]
    dimensions = 1 if oat.encoding == "none" else oat.dimensions
    conditioned = 0
    for name in filter(None, norms):
        parts = split(network.get_submodule(name), register)
        assert parts is not None, "a plan names BatchNorms of known kinds only"
        norm, after = parts
        assert isinstance(norm, Norm), "as above"
        bare = any(fnmatchcase(name, pattern) for pattern in oat.without_film)
        film = FilmNorm(norm, norm.num_features, oat.batchnorm == "dual", None if bare else dimensions, told)
        network.set_submodule(name, film if after is None else nn.Sequential(film, after))
        conditioned += not bare
    if not conditioned:
        raise NetworkError(
            "the network has no BatchNorm that FiLM could follow, so OAT cannot tell it lambda.",
            fix="train with method: float, or another network",
        )
