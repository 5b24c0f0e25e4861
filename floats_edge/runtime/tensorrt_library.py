"""The TensorRT of this machine: TensorRT 10.3 to 11, or TensorRT-RTX, which has the same API.

Where CUDA cannot start, ``Runtime`` of TensorRT 11.4 gives an object that crashes the process when it is used, or let
go of; only an error in the log tells. Other makers raise TypeError for what they could not make. So its objects are
made here alone.
"""

import ctypes
import functools
import importlib
import logging
import platform
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from floats_edge.artifacts.manifest import Flavour
from floats_edge.errors import BackendError

if TYPE_CHECKING:
    import tensorrt

TENSORRT_LOG = logging.getLogger("floats_edge.tensorrt")
"""What TensorRT says."""
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
"""In order of preference."""
PIP = f"{sys.executable} -m pip install"
"""What installs a package for this Python, which on a board is one that ``pip`` there does not reach."""

_NO_GPUS = ("NONE", "CURRENT")
"""Compute capabilities of TensorRT-RTX that name no GPU."""
_OLDEST = (10, 3)
_INSTALL = (
    f"on x86-64: {PIP} tensorrt-rtx-cu13 (TensorRT-RTX) or tensorrt (the full TensorRT); "
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


def known_gpus(trt: Any) -> tuple[str, ...]:
    """What TensorRT-RTX can compile for, for example ``sm_86``."""
    names = [name for name in trt.ComputeCapability.__members__ if name not in _NO_GPUS]
    return tuple(name.replace("SM", "sm_") for name in names)


def check_gpu(flavour: Flavour, trt: Any, target: str) -> None:
    """Check that a flavour runs on GPUs of a compute capability: TensorRT-RTX does on those that it compiles for.

    Raises:
        BackendError: it does not.
    """
    if flavour == "tensorrt_rtx" and target not in known_gpus(trt):
        raise BackendError(
            f"TensorRT-RTX {trt.__version__} knows {', '.join(known_gpus(trt))}, not this GPU, {target}, "
            "which takes the full TensorRT.",
            fix=f"{PIP} tensorrt; a Jetson has JetPack's",
        )


def host_platform() -> str:
    """Operating system and machine, for example ``linux-x86_64`` or ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


def make_runtime(trt: Any) -> "tensorrt.Runtime":
    """What deserialises engines.

    Raises:
        BackendError: TensorRT cannot make one here; says why.
    """
    return _made(trt, trt.Runtime)


def make_builder(trt: Any) -> "tensorrt.Builder":
    """What builds engines.

    Raises:
        BackendError: TensorRT cannot make one here; says why.
    """
    return _made(trt, trt.Builder)


def make_parser(trt: Any, network: "tensorrt.INetworkDefinition") -> "tensorrt.OnnxParser":
    """What reads an ONNX graph into ``network``.

    Raises:
        BackendError: TensorRT cannot make one here; says why.
    """
    return _made(trt, trt.OnnxParser, network)


def make_refitter(trt: Any, engine: "tensorrt.ICudaEngine") -> "tensorrt.Refitter":
    """What gives ``engine`` other weights.

    Raises:
        BackendError: TensorRT cannot make one here; says why.
    """
    return _made(trt, trt.Refitter, engine)


def _made(trt: Any, maker: Callable[..., Any], *arguments: Any) -> Any:
    """What a maker of TensorRT makes, unless it has said that it failed."""
    logger = tensorrt_logger(trt)
    logger.heard.errors.clear()
    try:
        made = maker(*arguments, logger)
    except (TypeError, RuntimeError) as error:
        made = None
        logger.heard.errors.append(str(error).splitlines()[0])
    if logger.heard.errors:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # never let go of
        raise BackendError(
            f"TensorRT {trt.__version__} cannot make a {maker.__name__} here: {' '.join(logger.heard.errors)}",
            fix="check the driver with nvidia-smi (Jetson: tegrastats); in a container start it with --gpus all; "
            "a driver older than the CUDA of this TensorRT must be updated, or a TensorRT for its CUDA be installed",
        )
    return made


class _Heard(threading.local):
    """Errors that TensorRT has told this thread."""

    def __init__(self) -> None:
        self.errors: list[str] = []


@functools.cache
def tensorrt_logger(trt: Any) -> Any:
    """What TensorRT says, sent to Python's logging. Cached because TensorRT keeps the first logger it is given."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.heard = _Heard()

        def log(self, severity: Any, msg: str) -> None:
            level = _LEVELS[severity.name]
            if level == logging.ERROR:
                self.heard.errors.append(msg)
            TENSORRT_LOG.log(level, "%s", msg)

    return Log()
