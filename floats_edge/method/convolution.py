"""The convolution that every trained layer uses."""

from torch import Tensor
from torch.nn.functional import conv2d


def convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """``[N, in, H, W]`` and ``[out, in, k, k]``, k odd, to ``[N, out, H/stride, W/stride]``, sizes rounded up.

    A strided 1x1 convolution subsamples first: the same function, without the weight gradient that oneDNN gets wrong,
    or crashes in, for few channels stored channels last (its issue 6035).
    """
    kernel_size = weight.shape[-1]
    if kernel_size == 1:
        return conv2d(x[:, :, ::stride, ::stride], weight)
    return conv2d(x, weight, stride=stride, padding=kernel_size // 2)
