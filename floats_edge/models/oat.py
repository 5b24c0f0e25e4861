"""OAT's network: a backbone of FiLM layers, and the encoding that tells them lambda."""

import torch
from torch import Tensor, nn

from floats_edge.method.film import EncodedLambda, encoding_matrix
from floats_edge.models.spec import Oat


class OatNetwork(nn.Module):
    """Logits of images at one lambda, or at a lambda for each image; what it learned is served unfolded.

    Args:
        backbone: of FiLM layers.
        oat: its options.
        seed: of a random encoding, which is saved with the weights.
    """

    codes: Tensor

    def __init__(self, backbone: nn.Module, oat: Oat, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.oat = oat
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
        return self.backbone(images, EncodedLambda(code, zeros=len(images) if lam == 0 else 0))

    def mixed(self, images: Tensor, choice: Tensor, zeros: int) -> Tensor:
        """Logits of images each at a lambda of its own.

        Args:
            images: those of lambda 0 first.
            choice: position of each image's lambda in ``oat.lambdas``, int64 ``[N]``.
            zeros: how many of them are of lambda 0.
        """
        return self.backbone(images, EncodedLambda(self.codes[choice], zeros))
