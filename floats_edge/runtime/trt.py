"""TensorRT and TensorRT-RTX: finding the library, choosing the engine that fits this host, running it."""

import functools
import importlib
import logging
import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import LAMBDA_INPUT, Engine, Flavour, Precision
from floats_edge.artifacts.records import Reading
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.runtime.base import DEFAULT_HOST, Host, Images, Kernels, Logits, Predictor
from floats_edge.runtime.cuda import Cuda, open_cuda
from floats_edge.runtime.lambda_weights import input_weights
from floats_edge.runtime.trt_kernels import time_kernels
from floats_edge.runtime.trt_launch import GraphLaunch, Launch, graph_context
from floats_edge.runtime.trt_memory import engine_memory

if TYPE_CHECKING:
    import tensorrt

FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
"""In order of preference."""

_OLDEST = (10, 3)
_INSTALL = (
    "pip install 'floats-edge[rtx]' (TensorRT-RTX, x86-64) or 'floats-edge[trt]' (TensorRT); "
    "on a Jetson use JetPack's: apt install python3-libnvinfer, and a venv with --system-site-packages"
)
_WEIGHT_TYPES: dict[Precision, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}
"""Names of the types of refittable weights."""
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
    log = logging.getLogger("floats_edge.tensorrt")

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.log(_LEVELS[severity.name], "%s", msg)

    return Log()


def open_trt(bundle: Bundle, lam: float, host: Host = DEFAULT_HOST) -> "TrtPredictor":
    """Load the engines of a bundle that fit this host.

    Raises:
        ArtifactError: a plan or the weights are not what was exported.
        BackendError: no CUDA device, no engine that fits (says why for each), or TensorRT fails.
        LambdaError: ``lam`` is not served by this bundle.
    """
    with ExitStack() as stack:
        cuda = stack.enter_context(open_cuda())
        predictor = stack.enter_context(TrtPredictor(bundle, fitting_engines(bundle, cuda.target), cuda, host))
        predictor.set_lambda(lam)
        stack.pop_all()
    return predictor


def trt_unavailable_reason(bundle: Bundle | None = None) -> str | None:
    """Why TensorRT (or, if one is given, a bundle on TensorRT) cannot run here, or None where it can."""
    try:
        if bundle is None:
            preferred_tensorrt()
        with open_cuda() as cuda:
            if bundle is not None:
                fitting_engines(bundle, cuda.target)
    except BackendError as error:
        return error.what.rstrip(".")
    return None


def fitting_engines(bundle: Bundle, target: str) -> dict[float | None, Engine]:
    """For each lambda of the bundle (None where one serves all) the first engine that this host can run.

    Args:
        bundle: its manifest alone is read: nothing is deserialised before it is known to fit.
        target: compute capability of the device, for example ``sm_87``.

    Raises:
        BackendError: a lambda has no engine that fits; says of each of its engines why not.
    """
    manifest = bundle.manifest
    if not manifest.engines:
        raise BackendError(f"{bundle.path} holds no TensorRT engine.", fix=_rebuild(bundle))
    problems = {engine.file: _misfit(engine, target) for engine in manifest.engines}
    fitting: dict[float | None, Engine] = {}
    for lam in manifest.lam.values or (None,):
        served = [engine for engine in manifest.engines if engine.lam == lam]
        engine = next((engine for engine in served if problems[engine.file] is None), None)
        if engine is None:
            which = "no engine" if lam is None else f"no engine for lambda {lam:g}"
            reasons = " ".join(f"{engine.file}: {problems[engine.file]}" for engine in served) or "There is none."
            raise BackendError(f"{bundle.path} has {which} that runs here. {reasons}", fix=_rebuild(bundle))
        fitting[lam] = engine
    return fitting


def _misfit(engine: Engine, target: str) -> str | None:
    """Why this host cannot run an engine, or None if it can."""
    try:
        version = load_tensorrt(engine.flavour).__version__
    except BackendError as error:
        return error.what
    if version != engine.version:
        return f"built by {engine.flavour} {engine.version}; here is {version}."
    if engine.platform != host_platform():
        return f"built for {engine.platform}; this is {host_platform()}."
    if target not in engine.targets:
        return f"built for {', '.join(engine.targets)}; this GPU is {target}."
    return None


def _rebuild(bundle: Bundle) -> str:
    return f"floats-edge export {bundle.path} -o {bundle.path} --trt"


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An engine ready to run."""

    engine: "tensorrt.ICudaEngine"
    context: "tensorrt.IExecutionContext"  # keeps its engine and runtime alive
    batch: tuple[int, int, int]
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]  # of inputs and outputs; the batch axis is -1


def _load(bundle: Bundle, engine: Engine) -> _Loaded:
    plan = bundle.read(engine.file)  # a plan is executable code: this checks its hash
    trt = load_tensorrt(engine.flavour)
    runtime: tensorrt.Runtime = trt.Runtime(tensorrt_logger(trt))
    loaded = runtime.deserialize_cuda_engine(plan)
    context = loaded and loaded.create_execution_context()
    if not context:
        raise BackendError(
            f"{engine.flavour} could not load {bundle.path / engine.file}; its own message is in the log.",
            fix=f"free memory on this GPU and run it again, or rebuild the engine: {_rebuild(bundle)}",
        )
    tensors: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for index in range(loaded.num_io_tensors):
        name = loaded.get_tensor_name(index)
        shape: Any = loaded.get_tensor_shape(name)  # a Dims: a sequence, though the stubs do not say so
        tensors[name] = (tuple(shape), _numpy_type(trt, loaded.get_tensor_dtype(name)))
    return _Loaded(loaded, context, engine.batch, tensors)


def _numpy_type(trt: Any, dtype: Any) -> np.dtype[Any]:
    """NumPy's type for a tensor's; NumPy has no bfloat16, whose bits are uint16."""
    return np.dtype(np.uint16 if dtype == trt.DataType.BF16 else trt.nptype(dtype))


class _BoundWeights:
    """Mode ``bound``: device buffers that hold W(lambda), in the types in which the engine takes it.

    Attributes:
        addresses: of the buffers, by input name.
    """

    def __init__(self, bundle: Bundle, engine: _Loaded, cuda: Cuda) -> None:
        self._cuda = cuda
        self._weights = input_weights(bundle)
        images_and_logits = (bundle.manifest.input.name, bundle.manifest.output.name)
        wanted = {(name, *tensor) for name, tensor in engine.tensors.items() if name not in images_and_logits}
        arrays = self._weights.at(0.0)
        held = {(name, array.shape, array.dtype) for name, array in arrays.items()}
        if wanted != held:
            raise ArtifactError(
                f"the engine of {bundle.path} does not take the bundle's weights: "
                f"{', '.join(sorted({name for name, *_ in wanted ^ held}))} differ in name, shape or type.",
                fix=_rebuild(bundle),
            )
        self.addresses = {name: cuda.allocate(array.nbytes) for name, array in arrays.items()}

    def put(self, lam: float) -> None:
        """Compute W(lam) on the host and copy it over."""
        for name, array in self._weights.at(lam).items():
            self._cuda.to_device(self.addresses[name], array)
        self._cuda.synchronize()


class _LambdaInput:
    """Mode ``input``: a device scalar that holds lambda.

    Attributes:
        addresses: of the scalar, by input name.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.addresses = {LAMBDA_INPUT: cuda.allocate(4)}

    def put(self, lam: float) -> None:
        """Copy lambda over."""
        scalar = np.array([lam], dtype=np.float32)
        self._cuda.to_device(self.addresses[LAMBDA_INPUT], scalar)
        self._cuda.synchronize()


class _RefittedWeights:
    """Mode ``refit``: the engine's own weights, replaced by W(lambda) from host memory.

    A refit that fails may leave the engine half changed: the predictor must not be used after it.
    """

    addresses: Mapping[str, int] = {}

    def __init__(self, bundle: Bundle, engine: _Loaded, trt: Any) -> None:
        self._trt = trt
        self._remedy = _rebuild(bundle)
        self._weights = input_weights(bundle)
        self._refitter: tensorrt.Refitter = trt.Refitter(engine.engine, tensorrt_logger(trt))
        self._type = getattr(trt.DataType, _WEIGHT_TYPES[bundle.manifest.precision])
        expected, found = set(self._weights.varying), set(self._refitter.get_all_weights())
        if expected != found:
            raise ArtifactError(
                f"the engine of {bundle.path} cannot be refitted to another lambda: "
                f"{', '.join(sorted(expected ^ found))} should be refittable and is not, or the other way round.",
                fix=self._remedy,
            )

    def put(self, lam: float) -> None:
        """Compute W(lam) on the host and refit the engine with it."""
        arrays = self._weights.at(lam)
        for name in self._weights.varying:
            array = arrays[name]
            weights = self._trt.Weights(self._type, array.ctypes.data, array.size)
            if not self._refitter.set_named_weights(name, weights):
                raise BackendError(f"TensorRT does not accept {name} at lambda {lam:g}.", fix=self._remedy)
        missing = self._refitter.get_missing_weights()
        if missing or not self._refitter.refit_cuda_engine():
            what = f"it also wants {', '.join(missing)}" if missing else "its own message is in the log"
            raise BackendError(f"TensorRT failed to refit the engine to lambda {lam:g}: {what}.", fix=self._remedy)


class TrtPredictor(Predictor):
    """The engines of a bundle on the GPU: in mode ``bank`` one per lambda, otherwise one.

    ``predict`` takes any number of images: more than an engine's largest batch are run in parts. TensorRT-RTX compiles
    kernels on the host while it loads, and again for batch sizes it has not met.

    Args:
        bundle: where the plans and the weights are read from, their hashes checked first.
        engines: engine of each lambda, None for any, as :func:`fitting_engines` chooses them.
        cuda: an open device, which the predictor closes.
        host: whether to launch engines as CUDA graphs.
    """

    computes_on = "gpu"
    device_includes = "the engine alone, between two CUDA events"

    def __init__(
        self, bundle: Bundle, engines: Mapping[float | None, Engine], cuda: Cuda, host: Host = DEFAULT_HOST
    ) -> None:
        manifest = bundle.manifest
        lambdas = manifest.lam.values
        name = "trt, CUDA graph" if host.cuda_graph else "trt"
        super().__init__(name, manifest.input.shape, lambdas, 0.0 if lambdas is None else lambdas[0])
        self._cuda = cuda
        self._free_before, _ = cuda.memory_info()
        self._plan_bytes = sum(manifest.files[engine.file].bytes for engine in engines.values())
        self._trt = load_tensorrt(next(iter(engines.values())).flavour)
        self._remedy = _rebuild(bundle)
        largest = max(engine.batch[2] for engine in engines.values())
        self._host_images = cuda.pinned((largest, *self.image_shape), np.float32)
        self._host_logits = cuda.pinned((largest, len(manifest.output.labels)), np.float32)
        self._images, self._logits = (cuda.allocate(array.nbytes) for array in (self._host_images, self._host_logits))
        addresses = {manifest.input.name: self._images, manifest.output.name: self._logits}
        self._engines = {lam: _load(bundle, engine) for lam, engine in engines.items()}
        launch = GraphLaunch if host.cuda_graph else Launch
        if host.cuda_graph and self._trt.__name__ == "tensorrt_rtx":
            launch = Launch
            for lam, engine in self._engines.items():
                self._engines[lam] = replace(engine, context=graph_context(self._trt, engine.engine))
        self._launches = {
            lam: launch(engine.context, cuda, manifest.input.name, self._must) for lam, engine in self._engines.items()
        }
        self._broken = False
        self._lambda = self._lambda_of(bundle, engines)
        if self._lambda is not None:
            addresses |= self._lambda.addresses
            self._lambda.put(self.lam)
        for engine in self._engines.values():
            for name, address in addresses.items():
                self._must(engine.context.set_tensor_address(name, address), f"bind {name}")

    def _lambda_of(
        self, bundle: Bundle, engines: Mapping[float | None, Engine]
    ) -> "_BoundWeights | _LambdaInput | _RefittedWeights | None":
        """Where lambda goes into the one engine that serves every lambda."""
        mode = bundle.manifest.lam.mode
        if mode == "bound":
            return _BoundWeights(bundle, self._engines[None], self._cuda)
        if mode == "input":
            return _LambdaInput(self._cuda)
        if mode == "refit":
            return _RefittedWeights(bundle, self._engines[None], load_tensorrt(engines[None].flavour))
        return None

    def close(self) -> None:
        for launch in self._launches.values():
            launch.forget()
        self._launches.clear()
        self._lambda = None  # a refitter must go before its engine
        self._engines.clear()
        self._cuda.close()

    def _switch(self, lam: float) -> None:
        if self._lambda is not None:
            self._check_whole()
            self._broken = True  # until all of it is there: weights of two lambdas are no network
            self._lambda.put(lam)
            self._broken = False
            if not self._lambda.addresses:  # refitted: a CUDA graph may know the weights by where they were
                self._launches[None].forget()

    def _check_whole(self) -> None:
        if self._broken:
            raise BackendError(
                "an earlier change of lambda failed half-way, so this engine computes nothing of use.",
                fix="open the bundle again; if that fails too, rebuild the engine: " + self._remedy,
            )

    def _infer(self, images: Images) -> Logits:
        self._check_whole()
        largest = self._engines[self._key].batch[2]
        logits = np.empty((len(images), self._host_logits.shape[1]), dtype=np.float32)
        for start in range(0, len(images), largest):
            self._run(images[start : start + largest], logits[start : start + largest])
        return logits

    @property
    def _key(self) -> float | None:
        """Of the engine that serves the lambda in force."""
        return None if self.lambdas is None else self.lam

    def _run(self, images: Images, logits: Logits) -> None:
        """Fill ``logits`` ``[n, classes]`` from ``images`` ``[n, C, H, W]``, n up to the largest batch."""
        self._send(images)
        self._launches[self._key].put()
        result = self._host_logits[: len(logits)]
        self._cuda.to_host(result, self._logits)
        self._cuda.synchronize()
        np.copyto(logits, result)

    def _send(self, images: Images) -> None:
        """Queue the copy of some images, and make the engine ready for as many."""
        # Below the smallest batch, what an earlier one left in the buffer makes up the number: images are independent.
        rows = max(len(images), self._engines[self._key].batch[0])
        self._launches[self._key].prepare((rows, *self.image_shape))
        staged = self._host_images[: len(images)]
        np.copyto(staged, images)
        self._cuda.to_device(self._images, staged)

    def kernels(self, images: Images, count: int) -> Kernels:
        return time_kernels(self._trt, self._engines[self._key].context, lambda: self._infer(images), count)

    def memory(self) -> dict[str, Reading]:
        engines = [loaded.engine for loaded in self._engines.values()]
        return engine_memory(self._trt, engines, self._plan_bytes, self._cuda, self._free_before)

    def device_ms(self, images: Images) -> float | None:
        """Time between two CUDA events around the engine; None for more images than it takes at once.

        Never run on a GPU so far.
        """
        self._check_whole()
        if len(images) > self._engines[self._key].batch[2]:
            return None
        self._send(images)
        return self._cuda.time_ms(self._launches[self._key].put)

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise BackendError(f"TensorRT failed to {what}; its own message is in the log.", fix=self._remedy)
