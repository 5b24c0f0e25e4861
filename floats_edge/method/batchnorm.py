"""Dual BatchNorm: separate statistics and affine parameters for clean and for adversarial activations.

Source: Xie et al., "Adversarial Examples Improve Image Recognition" (CVPR 2020); used by OAT (Wang et al., NeurIPS
2020) and FLOAT (Kundu et al., arXiv 2204.00426).
"""

from torch import Tensor, nn


class DualBatchNorm2d(nn.Module):
    """``clean`` normalises what lambda = 0 computes, ``adv`` everything else. Input and output ``[N, C, H, W]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.clean = nn.BatchNorm2d(channels)
        self.adv = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, lam: float) -> Tensor:
        return self.clean(x) if lam == 0 else self.adv(x)
