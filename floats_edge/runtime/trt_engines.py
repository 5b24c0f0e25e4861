"""Which engine of a bundle runs on this host, and loading it. Nothing is deserialised before it is known to fit."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from floats_edge.artifacts.bundle import Bundle, rebuild_command
from floats_edge.artifacts.manifest import Engine
from floats_edge.errors import BackendError
from floats_edge.runtime.base import Host
from floats_edge.runtime.cuda_device import Cuda
from floats_edge.runtime.rtx_kernels import CompiledKernels, check_plan
from floats_edge.runtime.tensorrt_library import check_gpu, host_platform, load_tensorrt, make_runtime

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger("floats_edge.runtime")

_AMPERE = 80
_ANY_MODEL = {"ampere+", "same-cc"}
"""Engines that are made for other GPUs than the one that built them."""
_PROFILE = 0
"""The optimization profile that a context begins with."""
_NEXT_MAJOR = {10: 11}
"""Engines for newer versions cross one border between major versions: TensorRT 11 runs those of 10."""


def fitting_engines(bundle: Bundle, target: str) -> dict[float | None, Engine]:
    """For each lambda of the bundle (None where one serves all) the first engine that this host can run.

    Args:
        bundle: its manifest alone is read.
        target: compute capability of the device, for example ``sm_87``.

    Raises:
        BackendError: a lambda has no engine that fits; says of each of its engines why not.
    """
    manifest = bundle.manifest
    if not manifest.engines:
        raise BackendError(f"{bundle.path} holds no TensorRT engine.", fix=rebuild_command(bundle))
    problems = {engine.file: _misfit(engine, target) for engine in manifest.engines}
    fitting: dict[float | None, Engine] = {}
    for lam in manifest.lam.values or (None,):
        served = [engine for engine in manifest.engines if engine.lam == lam]
        engine = next((engine for engine in served if problems[engine.file] is None), None)
        if engine is None:
            which = "no engine" if lam is None else f"no engine for lambda {lam:g}"
            reasons = " ".join(f"{engine.file}: {problems[engine.file]}" for engine in served) or "There is none."
            raise BackendError(f"{bundle.path} has {which} that runs here. {reasons}", fix=rebuild_command(bundle))
        fitting[lam] = engine
    return fitting


def _misfit(engine: Engine, target: str) -> str | None:
    """Why this host cannot run an engine, or None if it can."""
    try:
        trt = load_tensorrt(engine.flavour)
        check_gpu(engine.flavour, trt, target)
    except BackendError as error:
        return error.what
    here = trt.__version__
    if not _runs_on_version(engine, here):
        newer = " for it and newer ones" if "version" in engine.compatibility else ""
        return f"built by {engine.flavour} {engine.version}{newer}; here is {here}."
    if engine.platform != host_platform():
        return f"built for {engine.platform}; this is {host_platform()}."
    if target not in engine.targets and not ("ampere+" in engine.compatibility and _number(target) >= _AMPERE):
        wider = ", and runs on Ampere or newer" if "ampere+" in engine.compatibility else ""
        return f"built for {', '.join(engine.targets)}{wider}; this GPU is {target}."
    if engine.dla is not None:
        try:
            cores = make_runtime(trt).num_DLA_cores
        except BackendError as error:
            return error.what
        if engine.dla >= cores:
            return f"built for DLA {engine.dla}; TensorRT finds {cores} here."
    return None


def _runs_on_version(engine: Engine, here: str) -> bool:
    if "version" not in engine.compatibility:
        return here == engine.version
    built, found = _numbers(engine.version), _numbers(here)
    return bool(built) and found >= built and found[0] in (built[0], _NEXT_MAJOR.get(built[0]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _number(target: str) -> int:
    return int(target.removeprefix("sm_"))


@dataclass(eq=False)
class LoadedEngine:
    """An engine ready to run.

    Attributes:
        engine: of TensorRT.
        context: of it; keeps it and its runtime alive.
        batch: smallest, optimal and largest.
        tensors: shape and type of every input and output by name; the batch axis is -1.
        odd: what of it no buffer of this package serves, one line each; empty where all is as the manifest says.
        kernels: what TensorRT-RTX compiles while it runs; None with the full TensorRT.
    """

    engine: "tensorrt.ICudaEngine"
    context: "tensorrt.IExecutionContext"
    batch: tuple[int, int, int]
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    odd: tuple[str, ...]
    kernels: CompiledKernels | None

    def close(self) -> None:
        """Keep what was compiled while it ran, for the next time; the context goes before what it was made with.

        Nothing else may hold the context any more.
        """
        try:
            if self.kernels is not None:
                self.kernels.keep()
        finally:
            del self.context


def load_engine(bundle: Bundle, engine: Engine, plan: bytes, cuda: Cuda, host: Host) -> LoadedEngine:
    """Deserialise the plan of an engine that fits this host.

    Args:
        bundle: it belongs to.
        engine: what the manifest says of it.
        plan: its bytes, whose hash was checked: a plan is executable code.
        cuda: the device it is to run on.
        host: whether it is to be launched as a CUDA graph.

    Raises:
        BackendError: TensorRT cannot load it, or has no CUDA graphs.
    """
    _warn_of_another_gpu(bundle, engine, cuda)
    trt = load_tensorrt(engine.flavour)
    runtime: tensorrt.Runtime = make_runtime(trt)
    # An engine for newer versions brings the runtime of its own version, a library that is run as it is.
    runtime.engine_host_code_allowed = "version" in engine.compatibility
    if engine.dla is not None:
        runtime.DLA_core = engine.dla
    if engine.flavour == "tensorrt_rtx":
        check_plan(trt, runtime, plan, bundle.path / engine.file, rebuild_command(bundle))
    loaded = runtime.deserialize_cuda_engine(plan)
    kernels = None
    if loaded and engine.flavour == "tensorrt_rtx":
        kernels = CompiledKernels(trt, loaded, bundle.manifest.files[engine.file].sha256, cuda, host)
    context = kernels.context(loaded) if kernels else loaded and loaded.create_execution_context()
    if not context:
        raise BackendError(
            f"{engine.flavour} could not load {bundle.path / engine.file}; its own message is in the log.",
            fix=f"free memory on this GPU and run it again, or rebuild the engine: {rebuild_command(bundle)}",
        )
    tensors: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for index in range(loaded.num_io_tensors):
        name = loaded.get_tensor_name(index)
        shape: Any = loaded.get_tensor_shape(name)  # a Dims: a sequence, though the stubs do not say so
        tensors[name] = (tuple(shape), _numpy_type(trt, loaded.get_tensor_dtype(name)))
    odd = _odd(trt, loaded, bundle, engine, list(tensors))
    return LoadedEngine(loaded, context, engine.batch, tensors, odd, kernels)


def _odd(trt: Any, loaded: Any, bundle: Bundle, engine: Engine, names: Sequence[str]) -> tuple[str, ...]:
    """What the buffers cannot serve, besides shapes and types: who writes, where, in which order, for which batches."""
    manifest = bundle.manifest
    odd: list[str] = []
    for name in names:
        kind = "output" if name == manifest.output.name else "input"
        is_plain = (
            loaded.get_tensor_mode(name) == getattr(trt.TensorIOMode, kind.upper())
            and loaded.get_tensor_location(name) == trt.TensorLocation.DEVICE
            and loaded.get_tensor_format(name, _PROFILE) == trt.TensorFormat.LINEAR
        )
        if not is_plain:
            odd.append(f"{name} is no {kind} of rows on the device")
    if manifest.input.name in names and not odd:
        smallest, _, largest = map(tuple, loaded.get_tensor_profile_shape(manifest.input.name, _PROFILE))
        if (smallest[0], largest[0]) != (engine.batch[0], engine.batch[2]):
            odd.append(f"it takes batches from {smallest[0]} to {largest[0]}")
    return tuple(odd)


def _warn_of_another_gpu(bundle: Bundle, engine: Engine, cuda: Cuda) -> None:
    """TensorRT loads engines for another model of the same compute capability, and advises against it."""
    if engine.gpu not in (None, cuda.name) and not _ANY_MODEL & set(engine.compatibility):
        log.warning(
            "%s was built on %s and this is %s: it may be slower than one built here, or fail; rebuild it: %s "
            "(--compatibility same-cc makes engines for all GPUs of a compute capability)",
            bundle.path / engine.file,
            engine.gpu,
            cuda.name,
            rebuild_command(bundle),
        )


def _numpy_type(trt: Any, dtype: Any) -> np.dtype[Any]:
    """NumPy's type for a tensor's; NumPy has no bfloat16, whose bits are uint16."""
    return np.dtype(np.uint16 if dtype == trt.DataType.BF16 else trt.nptype(dtype))
