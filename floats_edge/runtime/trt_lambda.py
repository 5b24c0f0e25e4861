"""Where lambda goes into a TensorRT engine that serves any: into buffers, into a scalar, or into the engine itself."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import Bundle, rebuild_command
from floats_edge.artifacts.manifest import LAMBDA_INPUT, Precision
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.runtime.cuda import Cuda
from floats_edge.runtime.lambda_weights import InputWeights
from floats_edge.runtime.tensorrt_library import tensorrt_logger
from floats_edge.runtime.trt_engines import LoadedEngine

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger("floats_edge.runtime")

_WEIGHT_TYPES: dict[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}
"""Names of the types of refittable weights."""


class LambdaPlace(Protocol):
    """What carries lambda to an engine.

    Attributes:
        addresses: device pointers to bind, by input name: they never change.
    """

    addresses: Mapping[str, int]

    def put(self, lam: float) -> None:
        """Let the engine compute with ``lam`` from the next inference on.

        Raises:
            BackendError: it failed, and the engine may hold weights of two lambdas: it must not be used after it.
        """
        ...


class BoundWeights:
    """Mode ``bound``: device buffers that hold W(lambda), in the types in which the engine takes it.

    Raises:
        ArtifactError: the engine takes other weights than the bundle holds.
    """

    def __init__(self, bundle: Bundle, weights: InputWeights, engine: LoadedEngine, cuda: Cuda) -> None:
        self._cuda = cuda
        self._weights = weights
        images_and_logits = (bundle.manifest.input.name, bundle.manifest.output.name)
        wanted = {(name, *tensor) for name, tensor in engine.tensors.items() if name not in images_and_logits}
        arrays = self._weights.at(0.0)
        held = {(name, array.shape, array.dtype) for name, array in arrays.items()}
        if wanted != held:
            raise ArtifactError(
                f"the engine of {bundle.path} does not take the bundle's weights: "
                f"{', '.join(sorted({name for name, *_ in wanted ^ held}))} differ in name, shape or type.",
                fix=rebuild_command(bundle),
            )
        self.addresses: Mapping[str, int] = {name: cuda.allocate(array.nbytes) for name, array in arrays.items()}
        for name, array in arrays.items():
            cuda.to_device(self.addresses[name], array)
        cuda.synchronize()

    def put(self, lam: float) -> None:
        """Compute W(lam) on the host and copy over what depends on lambda."""
        arrays = self._weights.at(lam)
        for name in self._weights.varying:
            self._cuda.to_device(self.addresses[name], arrays[name])
        self._cuda.synchronize()


class LambdaInput:
    """Mode ``input``: a device scalar that holds lambda."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.addresses: Mapping[str, int] = {LAMBDA_INPUT: cuda.allocate(4)}

    def put(self, lam: float) -> None:
        """Copy lambda over."""
        scalar = np.array([lam], dtype=np.float32)
        self._cuda.to_device(self.addresses[LAMBDA_INPUT], scalar)
        self._cuda.synchronize()


class _HostMemory:
    """Weights that TensorRT fetches from host memory itself."""

    location = "HOST"

    def hold(self, name: str, array: NDArray[Any]) -> int:
        """Pointer to the values of ``array``."""
        return array.ctypes.data


class _DeviceMemory:
    """Weights in device buffers, from which TensorRT takes them without the host."""

    location = "DEVICE"

    def __init__(self, arrays: Mapping[str, NDArray[Any]], cuda: Cuda) -> None:
        self._cuda = cuda
        self._buffers = {name: cuda.allocate(array.nbytes) for name, array in arrays.items()}

    def hold(self, name: str, array: NDArray[Any]) -> int:
        """Queue a copy of ``array``; pointer to where it goes."""
        self._cuda.to_device(self._buffers[name], array)
        return self._buffers[name]


class RefittedWeights:
    """Mode ``refit``: the engine's own weights, replaced by W(lambda), which is computed on the host.

    They are handed over in device memory where TensorRT takes them there, and otherwise in host memory. What is outside
    a mask is zero at every lambda, so an engine that counts on 2:4 sparsity stays right.

    Raises:
        ArtifactError: the engine refits other weights than those of the bundle that depend on lambda.
    """

    addresses: Mapping[str, int] = {}

    def __init__(self, bundle: Bundle, weights: InputWeights, engine: LoadedEngine, trt: Any, cuda: Cuda) -> None:
        self._trt, self._cuda = trt, cuda
        self._remedy = rebuild_command(bundle)
        self._weights = weights
        self._refitter: tensorrt.Refitter = trt.Refitter(engine.engine, tensorrt_logger(trt))
        self._type = getattr(trt.DataType, _WEIGHT_TYPES[bundle.manifest.precision])
        varying = {name: array for name, array in self._weights.at(0.0).items() if name in self._weights.varying}
        wrong = set(varying) ^ set(self._refitter.get_all_weights()) or {
            name for name, array in varying.items() if not self._is_of_kind(name, array)
        }
        if wrong:
            raise ArtifactError(
                f"the engine of {bundle.path} cannot be refitted to another lambda: {', '.join(sorted(wrong))} should "
                "be refittable and is not, or the other way round, or is of another size or type.",
                fix=self._remedy,
            )
        self._memory: _HostMemory | _DeviceMemory = _DeviceMemory(varying, cuda)
        refused = [name for name, array in varying.items() if not self._hand_over(name, array)]
        if refused:
            log.warning("refitting through host memory: TensorRT does not take %s from the device", refused[0])
            self._memory = _HostMemory()
        cuda.synchronize()

    def _is_of_kind(self, name: str, array: NDArray[Any]) -> bool:
        prototype = self._refitter.get_weights_prototype(name)
        return prototype.size == array.size and prototype.dtype == self._type

    def _hand_over(self, name: str, array: NDArray[Any]) -> bool:
        weights = self._trt.Weights(self._type, self._memory.hold(name, array), array.size)
        location = getattr(self._trt.TensorLocation, self._memory.location)
        return self._refitter.set_named_weights(name, weights, location)

    def put(self, lam: float) -> None:
        """Compute W(lam) on the host and refit the engine with it."""
        arrays = self._weights.at(lam)
        for name in self._weights.varying:
            if not self._hand_over(name, arrays[name]):
                raise BackendError(f"TensorRT does not accept {name} at lambda {lam:g}.", fix=self._remedy)
        self._cuda.synchronize()
        missing = self._refitter.get_missing_weights()
        if missing or not self._refitter.refit_cuda_engine():
            what = f"it also wants {', '.join(missing)}" if missing else "its own message is in the log"
            raise BackendError(f"TensorRT failed to refit the engine to lambda {lam:g}: {what}.", fix=self._remedy)
