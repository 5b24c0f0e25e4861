"""The TensorRT of this machine: TensorRT 10.3 to 11, or TensorRT-RTX, which has the same API."""

import functools
import importlib
import logging
import platform
from typing import Any

from floats_edge.artifacts.manifest import Flavour
from floats_edge.errors import BackendError

TENSORRT_LOG = logging.getLogger("floats_edge.tensorrt")
"""What TensorRT says."""
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
"""In order of preference."""

_OLDEST = (10, 3)
_INSTALL = (
    "pip install 'floats-edge[rtx]' (TensorRT-RTX, x86-64) or 'floats-edge[trt]' (TensorRT); "
    "on a Jetson use JetPack's: apt install python3-libnvinfer, and a venv with --system-site-packages"
)
_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}


def load_tensorrt(flavour: Flavour) -> Any:
    """The Python module of a flavour; both have the same API, that of ``tensorrt``.

    Raises:
        BackendError: not installed, a library of it missing, or older than TensorRT 10.3 (JetPack 6).
    """
    try:
        module = importlib.import_module(flavour)
    except (ImportError, OSError) as error:
        raise BackendError(f"{flavour} cannot be imported: {error}.", fix=_INSTALL) from None
    version = getattr(module, "__version__", None)
    if version is None:  # a folder of that name, such as type stubs, imports as an empty package
        raise BackendError(f"{flavour} is not installed.", fix=_INSTALL)
    if flavour == "tensorrt" and tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise BackendError(f"{flavour} {version} is older than 10.3, the first supported.", fix=_INSTALL)
    return module


def preferred_tensorrt() -> tuple[Flavour, Any]:
    """The flavour to build with, and its module: TensorRT where it is installed, otherwise TensorRT-RTX.

    Raises:
        BackendError: neither can be used; says why.
    """
    try:
        return FLAVOURS[0], load_tensorrt(FLAVOURS[0])
    except BackendError as first:
        try:
            return FLAVOURS[1], load_tensorrt(FLAVOURS[1])
        except BackendError as second:
            raise BackendError(f"there is no TensorRT: {first.what} {second.what}", fix=_INSTALL) from None


def host_platform() -> str:
    """Operating system and machine, for example ``linux-x86_64`` or ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


@functools.cache
def tensorrt_logger(trt: Any) -> Any:
    """What TensorRT says, sent to Python's logging. Cached because TensorRT keeps the first logger it is given."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            TENSORRT_LOG.log(_LEVELS[severity.name], "%s", msg)

    return Log()
