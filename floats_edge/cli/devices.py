"""Which torch device a command runs on."""

import os

from floats_edge.errors import BackendError


def torch_device(name: str) -> str:
    """A torch device from an option: ``auto`` is ``cuda`` where there is a GPU, else ``cpu``.

    Raises:
        BackendError: PyTorch is not installed, or has no such device.
    """
    # OpenMP's idle threads spin by default: where other programs want the cores too, training gets many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch
    except ImportError as error:
        raise BackendError(
            f"this command needs PyTorch, which cannot be imported: {error}.", fix="pip install 'floats-edge[train]'"
        ) from None
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BackendError(f"PyTorch has no device {name!r} here: {reason}", fix="use --device cpu") from None
    return name
