"""What a product of float32 numbers is on an NVIDIA GPU: IEEE 754's, or that of TF32, which keeps 10 bits of mantissa.

PyTorch convolves in TF32 unless told otherwise; CPUs have no such thing. TF32 is several times faster, and its errors
are those of fp16: good enough for steps of training, not for what is called fp32 or compared to 1e-5.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

Float32 = Literal["ieee", "tf32"]


@contextmanager
def float32_as(kind: Float32) -> Iterator[None]:
    """Let PyTorch's convolutions and matrix products of float32 be of this kind, on GPUs, for as long as it lasts.

    By the older of PyTorch's two interfaces: what torch.compile asks for fails after the newer one was used. What that
    one says of everything, or of all of cuDNN, wins over the older one, and is put aside meanwhile.
    """
    import torch

    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    wide: tuple[Any, ...] = (torch.backends, cudnn)
    before = matmul.fp32_precision == "tf32", cudnn.conv.fp32_precision == "tf32"
    chosen: list[tuple[Any, str]] = []
    for each in wide:  # what is said of everything is read of cuDNN too, until it is put aside
        if each.fp32_precision != "none":
            chosen.append((each, each.fp32_precision))
            each.fp32_precision = "none"
    matmul.allow_tf32 = cudnn.allow_tf32 = kind == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
        for each, precision in chosen:
            each.fp32_precision = precision
