"""Where lambda goes into a TensorRT engine that serves any: into buffers, into a scalar, or into the engine itself."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import Bundle, rebuild_command
from floats_edge.artifacts.manifest import LAMBDA_INPUT, Precision
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.runtime.cuda_device import Cuda
from floats_edge.runtime.lambda_weights import InputWeights
from floats_edge.runtime.tensorrt_library import make_refitter
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


class _OnDevice:
    """The first bytes of the memory of weights, on the device: what lies there beside each other is copied at once.

    Args:
        weights: those that depend on lambda come first.
        size: how many bytes.
        cuda: where they go.

    Attributes:
        addresses: device pointers to the weights, by name.
    """

    def __init__(self, weights: InputWeights, size: int, cuda: Cuda) -> None:
        self._weights, self._cuda = weights, cuda
        self._start = cuda.allocate(size) if size else 0
        self.addresses = {name: self._start + at for name, at in weights.memory.offsets.items() if at < size}

    def copy(self, size: int) -> None:
        """Queue a copy of the first ``size`` bytes."""
        if size:
            self._cuda.stream.to_device(self._start, self._weights.memory.bytes[:size])


class BoundWeights:
    """Mode ``bound``: device memory that holds W(lambda), in the types in which the engine takes it.

    A change is one copy of what depends on lambda.

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
        size = weights.memory.bytes.nbytes
        self._there = _OnDevice(weights, size, cuda)
        self.addresses: Mapping[str, int] = self._there.addresses
        self._there.copy(size)
        cuda.stream.synchronize()

    def put(self, lam: float) -> None:
        """Compute W(lam) on the host and copy over what depends on lambda."""
        self._weights.at(lam)
        self._there.copy(self._weights.varying_bytes)
        self._cuda.stream.synchronize()


class LambdaInput:
    """Mode ``input``: a device scalar that holds lambda."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.addresses: Mapping[str, int] = {LAMBDA_INPUT: cuda.allocate(4)}

    def put(self, lam: float) -> None:
        """Copy lambda over."""
        scalar = np.array([lam], dtype=np.float32)
        self._cuda.stream.to_device(self.addresses[LAMBDA_INPUT], scalar)
        self._cuda.stream.synchronize()


class RefittedWeights:
    """Mode ``refit``: the engine's own weights, replaced by W(lambda), which is computed on the host.

    TensorRT is handed the memory that holds them once, device memory if it takes that and otherwise the host's, and
    reads it anew at every refit: its Python refitter keeps each ``Weights`` that it is given until its own end. What is
    outside a mask is zero at every lambda, so an engine that counts on 2:4 sparsity stays right.

    Attributes:
        location: ``DEVICE`` or ``HOST``; None before the first refit.

    Raises:
        ArtifactError: the engine refits other weights than those of the bundle that depend on lambda.
    """

    addresses: Mapping[str, int] = {}
    location: str | None = None

    def __init__(self, bundle: Bundle, weights: InputWeights, engine: LoadedEngine, trt: Any, cuda: Cuda) -> None:
        self._trt, self._cuda = trt, cuda
        self._remedy = rebuild_command(bundle)
        self._weights = weights
        self._refitter: tensorrt.Refitter = make_refitter(trt, engine.engine)
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
        self._there = _OnDevice(weights, weights.varying_bytes, cuda)

    def _is_of_kind(self, name: str, array: NDArray[Any]) -> bool:
        prototype = self._refitter.get_weights_prototype(name)
        return prototype.size == array.size and prototype.dtype == self._type

    def put(self, lam: float) -> None:
        """Compute W(lam) on the host and refit the engine with it."""
        arrays = self._weights.at(lam)  # always the same arrays
        if self.location != "HOST":
            self._there.copy(self._weights.varying_bytes)
        self._cuda.stream.synchronize()  # an engine with work under way must not be refitted
        if self.location is None:
            self.location = self._hand_over({name: arrays[name] for name in self._there.addresses})
        missing = self._refitter.get_missing_weights()
        if missing or not self._refitter.refit_cuda_engine_async(self._cuda.stream.handle):
            what = f"it also wants {', '.join(missing)}" if missing else "its own message is in the log"
            raise BackendError(f"TensorRT failed to refit the engine to lambda {lam:g}: {what}.", fix=self._remedy)
        self._cuda.stream.synchronize()

    def _hand_over(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Where TensorRT is told to find the weights.

        Raises:
            BackendError: it takes them from nowhere.
        """
        refused = [name for name, array in arrays.items() if not self._take(name, array, "DEVICE")]
        if not refused:
            return "DEVICE"
        log.warning("refitting through host memory: TensorRT does not take %s from the device", refused[0])
        refused = [name for name, array in arrays.items() if not self._take(name, array, "HOST")]
        if refused:
            raise BackendError(f"TensorRT does not accept {', '.join(refused)} to be refitted.", fix=self._remedy)
        return "HOST"

    def _take(self, name: str, array: NDArray[Any], location: str) -> bool:
        pointer = self._there.addresses[name] if location == "DEVICE" else array.ctypes.data
        weights = self._trt.Weights(self._type, pointer, array.size)
        return self._refitter.set_named_weights(name, weights, getattr(self._trt.TensorLocation, location))
