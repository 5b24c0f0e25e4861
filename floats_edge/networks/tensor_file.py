"""Reading a file of pretrained tensors that may come from anyone: no code of it runs."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from floats_edge.errors import NetworkError

_ENTRIES = ("model_ema", "state_dict_ema", "state_dict", "model_state_dict", "model", "module", "net")
"""Where training checkpoints keep the network, averaged weights first: published figures are theirs."""
_SAVE_ANEW = "write the tensors anew: safetensors.torch.save_file(network.state_dict(), 'weights.safetensors')"


class TensorFile(NamedTuple):
    """The tensors of a file by name, and the entry of a training checkpoint that held them; empty: none."""

    tensors: dict[str, Tensor]
    entry: str


def read_tensors(path: Path) -> TensorFile:
    """Read safetensors, or what ``torch.save`` wrote of tensors and plain values, onto the CPU.

    Raises:
        NetworkError: the file is missing or damaged, is neither, or holds code or no tensors.
    """
    if not path.is_file():
        raise NetworkError(f"there is no file {path}.", fix="set model.weights to a file of pretrained tensors")
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # after the length of its header, which is JSON
        loaded = safetensors.torch.load_file(path) if is_safetensors else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise NetworkError(f"{path} holds no tensors that can be read safely: {reason}", fix=_SAVE_ANEW) from error
    found = _state_dict(loaded, "")
    if not found.tensors:
        raise NetworkError(f"{path} holds no named tensors.", fix=_SAVE_ANEW)
    return found


def _state_dict(loaded: object, entry: str) -> TensorFile:
    if not isinstance(loaded, Mapping):
        return TensorFile({}, entry)
    for name in _ENTRIES:
        inner = _state_dict(loaded.get(name), f"{entry}.{name}".strip("."))
        if inner.tensors:
            return inner
    return TensorFile({str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}, entry)
