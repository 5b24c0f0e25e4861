"""The convolution against a definition of it, and its gradient where a library's is known to be wrong."""

import pytest
import torch
from torch.nn.functional import conv2d

from floats_edge.method.convolution import convolve


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
def test_it_is_the_padded_strided_convolution(kernel_size: int, stride: int, size: int) -> None:
    x, weight = torch.randn(2, 16, size, size), torch.randn(5, 16, kernel_size, kernel_size)
    wanted = conv2d(x, weight, stride=stride, padding=kernel_size // 2)
    torch.testing.assert_close(convolve(x, weight, stride), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_the_gradient_of_a_strided_projection_is_right_for_few_channels(channels: int) -> None:
    x = torch.randn(8, channels, 16, 16).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(8, channels, 1, 1, requires_grad=True)
    out = convolve(x, weight, 2)
    seed = torch.randn_like(out)
    out.backward(seed)
    assert weight.grad is not None
    wanted = torch.einsum("nohw,nihw->oi", seed.double(), x[:, :, ::2, ::2].double())
    torch.testing.assert_close(weight.grad[:, :, 0, 0].double(), wanted, rtol=1e-4, atol=1e-3)
