"""ONNX to a TensorRT plan, with TensorRT 10.3 to 11 or TensorRT-RTX, in a process of its own.

A build may run out of memory, crash, or leave state behind: :func:`build_engine` starts this module as a program, which
reads one request as JSON from stdin, logs to stderr and answers in JSON on stdout. Networks are strongly typed: the
precision is that of the graph. TensorRT compiles for the GPU it finds; TensorRT-RTX needs none and compiles for all
that it knows, from Ampere on.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from floats_edge.artifacts.files import write_atomic, writing
from floats_edge.artifacts.manifest import Flavour
from floats_edge.errors import BackendError, FloatsError, OutputError
from floats_edge.runtime.cuda import open_cuda
from floats_edge.runtime.trt import host_platform, preferred_tensorrt, tensorrt_logger

if TYPE_CHECKING:
    import tensorrt

IMAGES = "images"
_NO_TARGETS = ("NONE", "CURRENT", "SM75")
"""RTX compute capabilities not to build for. For Turing (7.5) TensorRT-RTX has no FP32 matrix product, and its support
matrix advises against engines that serve Turing and others: they are slower on the others."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        onnx: a graph whose input ``images`` ``[N, C, H, W]`` has a dynamic batch axis; nothing else is dynamic.
        plan: the file to write.
        batch: smallest, optimal and largest batch.
        refittable: names of the weights that may be refitted; none: an engine that cannot be.

    Raises:
        BackendError: the batches are not in ascending order.
    """

    onnx: Path
    plan: Path
    batch: tuple[int, int, int]
    refittable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        smallest, optimal, largest = self.batch
        if not 1 <= smallest <= optimal <= largest:
            raise BackendError(
                f"batches {smallest}, {optimal}, {largest} are not a smallest, an optimal and a largest one.",
                fix="give three numbers from 1 on in ascending order, for example 1, 8, 32",
            )


@dataclass(frozen=True)
class BuiltEngine:
    """A plan and what can run it: fields as in :class:`floats_edge.artifacts.manifest.Engine`."""

    flavour: Flavour
    version: str
    platform: str
    targets: tuple[str, ...]
    batch: tuple[int, int, int]
    log: str = ""


@dataclass(frozen=True)
class _Failure:
    """A :class:`FloatsError` on its way to the parent process."""

    error: str
    what: str
    fix: str


_REQUEST = TypeAdapter(BuildRequest)
_ANSWER: TypeAdapter[BuiltEngine | _Failure] = TypeAdapter(BuiltEngine | _Failure)


def available_tensorrt() -> tuple[Flavour, str] | None:
    """Flavour and version of the TensorRT that engines would be built with here, or None."""
    try:
        flavour, trt = preferred_tensorrt()
    except BackendError:
        return None
    return flavour, trt.__version__


def build_engine(request: BuildRequest) -> BuiltEngine:
    """Build a plan; it is written whole or not at all.

    Raises:
        BackendError: there is no TensorRT (or, for the full one, no GPU), it does not accept the graph, or it crashed.
        OutputError: the plan cannot be written.
    """
    plan = request.plan
    with writing(plan):
        plan.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{plan.name}.", dir=plan.parent) as staging:
            staged = Path(staging) / plan.name
            built = _build_in_child(replace(request, plan=staged))
            staged.replace(plan)
    return built


def _build_in_child(request: BuildRequest) -> BuiltEngine:
    child = subprocess.run(  # kills the child on any exception, Ctrl-C too
        [sys.executable, "-m", "floats_edge.deploy.tensorrt_engine"],
        input=_REQUEST.dump_json(request),
        capture_output=True,
        check=False,
    )
    log = child.stderr.decode(errors="replace")
    if child.returncode:
        raise _died(request.onnx, child.returncode, log)
    answer = _ANSWER.validate_json(child.stdout)
    if isinstance(answer, BuiltEngine):
        return replace(answer, log=log)
    kind = OutputError if answer.error == OutputError.__name__ else BackendError
    raise kind(answer.what + _errors(log), fix=answer.fix)


def _died(onnx: Path, status: int, log: str) -> BackendError:
    if status == -signal.SIGKILL:
        how = "the system killed it, as it does when memory runs out"
        fix = "close other programs or add swap, or build with a smaller largest batch"
    elif status < 0:
        how = f"it crashed with {signal.Signals(-status).name}"
        fix = "try another version of TensorRT; if it crashes there too, report the graph to NVIDIA"
    else:
        how = f"it ended with status {status}: {log.strip().splitlines()[-1] if log.strip() else 'no message'}"
        fix = "check the installation with floats-edge doctor"
    return BackendError(f"building an engine from {onnx} failed: {how}.{_errors(log)}", fix=fix)


def _errors(log: str) -> str:
    """The errors in a log, as a sentence to append."""
    errors = [line.removeprefix("ERROR ") for line in log.splitlines() if line.startswith("ERROR ")]
    return f" TensorRT said: {' '.join(errors)}" if errors else ""


def main() -> None:
    """Answer one request: the program that :func:`build_engine` starts."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not end up in the answer
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    request = _REQUEST.validate_json(sys.stdin.buffer.read())
    try:
        reply = _build(request)
    except FloatsError as error:
        reply = _Failure(type(error).__name__, error.what, error.fix)
    with answer:
        answer.write(_ANSWER.dump_json(reply))


def _build(request: BuildRequest) -> BuiltEngine:
    flavour, trt = preferred_tensorrt()
    if request.refittable and flavour == "tensorrt_rtx":
        raise BackendError(
            "TensorRT-RTX builds no refittable engine.",
            fix="copy the bundle to a machine with a GPU and the full TensorRT and run there: "
            "floats-edge export BUNDLE -o BUNDLE --trt; or export with --switch bound",
        )
    targets, workspace = (known_gpus(trt), None) if flavour == "tensorrt_rtx" else _this_gpu()
    logger = tensorrt_logger(trt)
    builder: tensorrt.Builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(request.onnx)):
        raise BackendError(
            f"{flavour} {trt.__version__} does not accept {request.onnx}.",
            fix="export it again with this floats-edge, or update TensorRT",
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; fp32 is to mean float32, not 10 bits of mantissa
    config.add_optimization_profile(_profile(builder, network, request))
    if request.refittable:
        mark_refittable(network, request.refittable)
        config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    if flavour == "tensorrt_rtx":
        _target(trt, config, targets)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(
            f"{flavour} {trt.__version__} could not build an engine from {request.onnx}.",
            fix="if memory ran out, build with a smaller largest batch; otherwise try the other precision or version",
        )
    write_atomic(request.plan, bytes(plan))
    return BuiltEngine(flavour, trt.__version__, host_platform(), targets, request.batch)


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
    batches: list[Any] = [(size, *dynamic[IMAGES][1:]) for size in request.batch]
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


def _this_gpu() -> tuple[tuple[str, ...], int]:
    """Its compute capability, and the bytes that tactics may work in.

    TensorRT would allow all memory there is; on a Jetson that is the system's too, and the system kills who takes it.
    """
    with open_cuda() as cuda:
        free, _ = cuda.memory_info()
        return (cuda.target,), free // 2


def known_gpus(trt: Any) -> tuple[str, ...]:
    """What TensorRT-RTX can compile for, for example ``sm_86``."""
    names = [name for name in trt.ComputeCapability.__members__ if name not in _NO_TARGETS]
    return tuple(name.replace("SM", "sm_") for name in names)


def _target(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """Let TensorRT-RTX compile for ``targets`` and no others."""
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(trt.ComputeCapability.__members__[target.replace("sm_", "SM")], index)


if __name__ == "__main__":
    main()
