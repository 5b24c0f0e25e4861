"""The build itself, in the process that :mod:`floats_edge.deploy.tensorrt_engine` starts for it.

Networks are strongly typed: the precision is that of the graph. TensorRT compiles for the GPU it finds; TensorRT-RTX
compiles for all that it knows, from Ampere on, and needs a GPU for refittable engines alone: NVIDIA's documents do not
say so, but without one version 1.7.1 fails with each of REFIT, REFIT_INDIVIDUAL and STRIP_PLAN.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from floats_edge.artifacts.cache import cache_file, read_cache, write_cache
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.manifest import Flavour
from floats_edge.deploy.dla import log_dla_layers
from floats_edge.deploy.engine_request import BuildRequest, BuiltEngine, EngineOptions
from floats_edge.errors import BackendError
from floats_edge.profiling.telemetry.tegra import is_jetson
from floats_edge.runtime.cuda import cuda_unavailable_reason, open_cuda
from floats_edge.runtime.cuda_device import Cuda
from floats_edge.runtime.tensorrt_library import (
    TENSORRT_LOG,
    host_platform,
    known_gpus,
    make_builder,
    make_parser,
    make_runtime,
    preferred_tensorrt,
)
from floats_edge.runtime.trt import trt_unavailable_reason

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger("floats_edge.deploy")

IMAGES = "images"
_NO_DEFAULT_TARGETS = ("sm_75",)
"""For Turing TensorRT-RTX has no FP32 matrix product, and its support matrix advises against engines that serve Turing
and others: they are slower on the others. Whoever wants one names it."""
_HARDWARE = {"ampere+": "AMPERE_PLUS", "same-cc": "SAME_COMPUTE_CAPABILITY"}


@dataclass(frozen=True)
class _Host:
    """What engines are compiled for here.

    Attributes:
        targets: compute capabilities by name.
        gpu: name of the GPU that tactics are timed on; None where there is no timing, as with TensorRT-RTX.
        workspace: bytes that tactics may work in; None leaves it to TensorRT.
    """

    targets: tuple[str, ...]
    gpu: str | None
    workspace: int | None


def build(request: BuildRequest) -> BuiltEngine:
    """Build one plan with the TensorRT of this machine, in this process.

    Raises:
        BackendError: there is no TensorRT or GPU that can do it, or it does not accept the graph.
        OutputError: the plan cannot be written.
    """
    flavour, trt = preferred_tensorrt()
    host = _check_rtx(trt, request) if flavour == "tensorrt_rtx" else _check_full(flavour, request.options)
    builder: tensorrt.Builder = make_builder(trt)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser: tensorrt.OnnxParser = make_parser(trt, network)
    if not parser.parse_from_file(str(request.onnx)):
        raise BackendError(
            f"{flavour} {trt.__version__} does not accept {request.onnx}.",
            fix="export it again with this floats-edge, or update TensorRT",
        )
    config = _configured(trt, flavour, builder, network, request, host)
    plan = _timed_build(trt, builder, network, config, host)
    if plan is None:
        raise BackendError(
            f"{flavour} {trt.__version__} could not build an engine from {request.onnx}.",
            fix="if memory ran out, build with a smaller largest batch; otherwise try the other precision or version",
        )
    write_atomic(request.plan, plan)
    layers = None if host.gpu is None and cuda_unavailable_reason() else _inspect(trt, plan, request.options)
    return BuiltEngine(flavour, trt.__version__, host_platform(), host.targets, host.gpu, layers)


def _configured(
    trt: Any,
    flavour: Flavour,
    builder: "tensorrt.Builder",
    network: "tensorrt.INetworkDefinition",
    request: BuildRequest,
    host: _Host,
) -> "tensorrt.IBuilderConfig":
    """What the builder is told besides the network, in which it marks what may be refitted."""
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; fp32 is to mean float32, not 10 bits of mantissa
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what the inspector and the profiler tell of kernels
    config.add_optimization_profile(_profile(builder, network, request))
    if request.sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if request.refittable:
        mark_refittable(network, request.refittable)
        config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    if flavour == "tensorrt_rtx":
        _target(trt, config, host.targets)
    else:
        _place(trt, builder, config, request.options)
    if host.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, host.workspace)
    return config


def _check_rtx(trt: Any, request: BuildRequest) -> _Host:
    """What TensorRT-RTX compiles for; it would ignore a DLA silently, and fail late on the rest.

    Raises:
        BackendError: it cannot build what is asked.
    """
    options, known = request.options, known_gpus(trt)
    no_gpu = trt_unavailable_reason() if request.refittable else None
    if no_gpu is not None:
        raise BackendError(
            f"TensorRT-RTX builds a refittable engine only where there is a GPU that it knows: {no_gpu}.",
            fix="copy the bundle to a machine with a GPU and run there: floats-edge export BUNDLE -o BUNDLE --trt; "
            "or export with --switch bound",
        )
    if options.compatibility or options.dla is not None:
        raise BackendError(
            "TensorRT-RTX has neither compatible engines nor DLAs: its engines run on the version that built them.",
            fix="leave --compatibility and --dla out (--target chooses the GPUs), or use the full TensorRT",
        )
    unknown = [target for target in options.targets if target not in known]
    if unknown:
        raise BackendError(
            f"TensorRT-RTX {trt.__version__} does not compile for {', '.join(unknown)}.",
            fix=f"choose from {', '.join(known)}; for other GPUs use their own, full TensorRT",
        )
    return _Host(options.targets or default_gpus(trt), None, None)


def _check_full(flavour: Flavour, options: EngineOptions) -> _Host:
    """The GPU of this machine.

    TensorRT would allow its tactics all memory there is; on a Jetson that is the system's too, and the system kills who
    takes it.

    Raises:
        BackendError: there is none, or other targets are asked for.
    """
    with open_cuda() as cuda:
        if options.targets and options.targets != (cuda.target,):
            raise BackendError(
                f"{flavour} compiles for the GPU it finds, which is {cuda.target}, not {', '.join(options.targets)}.",
                fix="leave --target out, or run it on that GPU; TensorRT-RTX can compile for several",
            )
        return _Host((cuda.target,), cuda.name, free_memory(cuda) // 2)


def free_memory(cuda: Cuda, root: Path = Path("/")) -> int:
    """Bytes that a program could still have on the GPU; ``root`` is where ``/proc`` stands.

    On a Jetson that is what the system would give, which empties its caches for it: they are not free to CUDA.
    """
    if is_jetson(root):
        return psutil.virtual_memory().available  # MemAvailable
    return cuda.memory_info()[0]


def _place(trt: Any, builder: "tensorrt.Builder", config: "tensorrt.IBuilderConfig", options: EngineOptions) -> None:
    """Say where else an engine of the full TensorRT must run, and on which DLA.

    Raises:
        BackendError: this TensorRT or this machine has no such thing.
    """
    if "version" in options.compatibility:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    for name in [_HARDWARE[each] for each in options.compatibility if each in _HARDWARE]:
        if name not in trt.HardwareCompatibilityLevel.__members__:
            raise BackendError(f"TensorRT {trt.__version__} has no {name} engines.", fix="update TensorRT")
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, name)
    if options.dla is None:
        return
    if options.dla >= builder.num_DLA_cores:
        raise BackendError(
            f"there is no DLA {options.dla} here: TensorRT {trt.__version__} finds {builder.num_DLA_cores}.",
            fix="leave --dla out; AGX Orin and Orin NX have DLAs, with TensorRT up to 10.7, and AGX Orin with JetPack "
            "7.2.2 from 11.4.1 on; Orin Nano and Thor have none",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla
    log_dla_layers(TENSORRT_LOG)
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # images come in and logits go out as float32, which no DLA computes


def _timed_build(
    trt: Any,
    builder: "tensorrt.Builder",
    network: "tensorrt.INetworkDefinition",
    config: "tensorrt.IBuilderConfig",
    host: _Host,
) -> bytes | None:
    """The plan; tactics that an earlier build timed on this GPU are not timed again.

    Timing caches of TensorRT-RTX do nothing and would demand a GPU: it has a cache of compiled kernels instead, at run
    time.
    """
    if host.gpu is None:
        return _bytes(builder.build_serialized_network(network, config))
    file = cache_file("timing", "tensorrt", trt.__version__, *host.targets, host.gpu)
    known = read_cache(file) or b""
    cache = config.create_timing_cache(known)
    if not cache or not config.set_timing_cache(cache, ignore_mismatch=False):
        log.warning("the timings in %s are not used: TensorRT does not accept them", file)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    log.info("timing cache %s: %d bytes", file, len(known))
    plan = _bytes(builder.build_serialized_network(network, config))
    timed = _bytes(config.get_timing_cache().serialize())
    if plan is not None and timed is not None and timed != known:
        write_cache(file, timed)
    return plan


def _bytes(memory: Any) -> bytes | None:
    return None if memory is None else bytes(memory)


def _inspect(trt: Any, plan: bytes, options: EngineOptions) -> str | None:
    """What TensorRT tells of the layers of a plan just built, as JSON; None if it cannot load it, which it logs."""
    runtime: tensorrt.Runtime = make_runtime(trt)
    runtime.engine_host_code_allowed = "version" in options.compatibility
    if options.dla is not None:
        runtime.DLA_core = options.dla
    engine = runtime.deserialize_cuda_engine(plan)
    if not engine:
        return None
    return engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)


def _profile(
    builder: "tensorrt.Builder", network: "tensorrt.INetworkDefinition", request: BuildRequest
) -> "tensorrt.IOptimizationProfile":
    """The batches that the engine must take: the images alone are dynamic, bound weights have fixed shapes."""
    shapes: dict[str, Any] = {tensor.name: tensor.shape for tensor in map(network.get_input, range(network.num_inputs))}
    dynamic = {name: tuple(shape) for name, shape in shapes.items() if -1 in tuple(shape)}
    if list(dynamic) != [IMAGES] or -1 in dynamic[IMAGES][1:]:
        raise BackendError(
            f"{request.onnx} should have one dynamic axis, the batch of {IMAGES!r}, and has {dynamic or 'none'}.",
            fix="export it with floats-edge export",
        )
    profile = builder.create_optimization_profile()
    batches: list[Any] = [(size, *dynamic[IMAGES][1:]) for size in request.options.batch]
    profile.set_shape(IMAGES, *batches)
    return profile


def mark_refittable(network: "tensorrt.INetworkDefinition", names: Sequence[str]) -> None:
    """Let the weights of these names, and no others, be refitted.

    Raises:
        BackendError: the network has no weights of one of the names.
    """
    for name in names:
        if not network.mark_weights_refittable(name):
            raise BackendError(
                f"TensorRT knows no weights {name!r} that could be refitted.",
                fix="export the bundle again with this floats-edge, or use --switch bound",
            )


def default_gpus(trt: Any) -> tuple[str, ...]:
    """What TensorRT-RTX compiles for unless targets are named."""
    return tuple(name for name in known_gpus(trt) if name not in _NO_DEFAULT_TARGETS)


def _target(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """Let TensorRT-RTX compile for ``targets`` and no others."""
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(trt.ComputeCapability.__members__[target.replace("sm_", "SM")], index)
