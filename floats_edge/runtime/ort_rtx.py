"""TensorRT-RTX as a plugin of ONNX Runtime: NVIDIA's package ``onnxruntime-ep-nv-tensorrt-rtx-cu13``.

It builds an engine whenever a session is made, for any batch, in the types that the graph states. When it compiles
kernels for a shape cannot be chosen: the first inferences of one may be slower than later ones. Never run on a GPU so
far; with a stand-in for the CUDA runtime, version 0.5 compiled the graphs of every mode and precision for sm_86.
"""

import ctypes
import functools
import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from floats_edge.errors import BackendError, add_extra

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDER = "NvTensorRTRTXExecutionProvider"
REMEDY = f"on x86-64 with an RTX GPU of the 30 series or newer and a driver for CUDA 13: {add_extra('ort-rtx')}"
"""For whoever lacks it."""

_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
_TF32 = "NVIDIA_TF32_OVERRIDE"
_environment = threading.Lock()


def plugin_is_installed() -> bool:
    """Whether the package is there; it is not imported."""
    return find_spec(_PACKAGE) is not None


def rtx_device() -> "ort.OrtEpDevice":
    """The first GPU that the plugin runs on.

    Raises:
        BackendError: the plugin is not installed, cannot be loaded, or knows no GPU of this machine.
    """
    import onnxruntime as ort

    _register()
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    if not devices:
        raise BackendError(f"{PROVIDER} finds no GPU that it knows: sm_86, sm_89, or sm_120 and newer.", fix=REMEDY)
    return devices[0]


@functools.cache
def _register() -> None:
    """Make the plugin known to ONNX Runtime, which refuses to be told twice."""
    import onnxruntime as ort

    try:
        plugin = importlib.import_module(_PACKAGE)
        for library in Path(str(plugin.__file__)).parent.glob("libcudart.so.*"):
            ctypes.CDLL(str(library))  # the package brings it, needs it, and does not load it
        ort.register_execution_provider_library(PROVIDER, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime raises a class of its own per status code
        raise BackendError(
            f"onnxruntime {ort.__version__} cannot load the plugin of TensorRT-RTX: {error}.", fix=REMEDY
        ) from error


@contextmanager
def without_tf32() -> Iterator[None]:
    """Engines that are built meanwhile compute float32 as IEEE 754 does; TensorRT's default is TF32."""
    with _environment:
        before = os.environ.get(_TF32)
        os.environ[_TF32] = "0"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_TF32]
            else:
                os.environ[_TF32] = before
