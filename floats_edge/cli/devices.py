"""Which torch device a command runs on."""

import os
from typing import TYPE_CHECKING

from floats_edge.errors import BackendError, add_extra

if TYPE_CHECKING:
    from floats_edge.recipe import Train


def torch_device(name: str, *trains: "Train") -> str:
    """A torch device from an option: ``auto`` is ``cuda`` where there is a GPU, else ``cpu``.

    Of several workers that torchrun started, each opens no other GPU than the one that it will take.

    Args:
        name: the option.
        trains: what is to be trained on it: what that asks of CUDA must be known before CUDA starts.

    Raises:
        BackendError: PyTorch is not installed, or has no such device.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError(
            f"this command needs PyTorch, which cannot be imported: {error}.", fix=add_extra("train")
        ) from None
    from floats_edge.training.execution import prepare_cublas

    prepare_cublas(*trains)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    opened = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name
    try:
        torch.empty(1, device=opened)
    except (RuntimeError, AssertionError) as error:
        raise BackendError(
            f"PyTorch has no device {opened!r} here: {str(error).splitlines()[0]}",
            fix="use --device cpu, or let torchrun start no more processes than there are GPUs",
        ) from None
    return name
