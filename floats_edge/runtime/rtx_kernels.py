"""What TensorRT-RTX alone has: a word on a plan before it is loaded, and kernels that it compiles while an engine runs.

The kernels are kept for the next time; TensorRT-RTX checks by itself that they fit the GPU, the driver and its own
version. Because it compiles kernels for a shape while it runs, it also makes CUDA graphs by itself (its guide, "Working
with RTX CUDA Graphs"). By default (``LAZY``) it runs fallback kernels until those for a shape have been compiled in the
background: what was checked would not be what serves, and latencies would change under way. Here the first inference of
a shape waits (``EAGER``).
Never run on a GPU so far.
"""

import logging
from pathlib import Path
from typing import Any

from floats_edge.artifacts.cache import cache_file, read_cache, write_cache
from floats_edge.errors import BackendError
from floats_edge.runtime.base import Host
from floats_edge.runtime.cuda_device import Cuda
from floats_edge.runtime.tensorrt_library import PIP

log = logging.getLogger("floats_edge.runtime")


def check_plan(trt: Any, runtime: Any, plan: bytes, file: Path, rebuild: str) -> None:
    """Ask TensorRT-RTX what it thinks of a plan, by its header; versions that cannot say are not asked.

    Args:
        trt: TensorRT-RTX.
        runtime: of it.
        plan: what is to be loaded.
        file: it was read from.
        rebuild: the command that makes another.

    Raises:
        BackendError: the plan is not for this machine; says why.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, bits = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    causes = [
        name.lower().replace("_", " ")
        for name, flag in trt.EngineInvalidityDiagnostics.__members__.items()
        if bits & int(flag)
    ]
    why = ", ".join(causes) or "its own message is in the log"
    if validity == trt.EngineValidity.INVALID:
        raise BackendError(f"TensorRT-RTX {trt.__version__} cannot run {file} here: {why}.", fix=rebuild)
    if validity == trt.EngineValidity.SUBOPTIMAL:
        log.warning("%s may be slower than one built here: %s", file, why)


class CompiledKernels:
    """The runtime cache of one engine, and how execution contexts use it; both must outlive every such context.

    Args:
        trt: TensorRT-RTX.
        engine: deserialised by it.
        sha256: of its plan.
        cuda: the device that they are compiled for.
        host: whether it is to launch CUDA graphs.

    Raises:
        BackendError: this version of TensorRT-RTX has no CUDA graphs.
    """

    def __init__(self, trt: Any, engine: Any, sha256: str, cuda: Cuda, host: Host) -> None:
        self._file = cache_file("kernels", "tensorrt_rtx", trt.__version__, cuda.target, cuda.name, sha256[:16])
        self._known = read_cache(self._file) or b""
        self._config = config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if host.cuda_graph:
            config.cuda_graph_strategy = whole_graph(trt)
        self._cache = config.create_runtime_cache()
        if self._known and not self._cache.deserialize(self._known):
            log.info("the kernels in %s were compiled for another driver and are compiled again", self._file)
        config.set_runtime_cache(self._cache)

    def context(self, engine: Any) -> Any:
        """An execution context that uses and fills the cache; None if TensorRT-RTX cannot make one."""
        return engine.create_execution_context(self._config)

    def keep(self) -> None:
        """Write what was compiled since, for the next time."""
        kernels = self._cache.serialize()
        if kernels is not None and bytes(kernels) != self._known:
            write_cache(self._file, bytes(kernels))


def whole_graph(trt: Any) -> Any:
    """The strategy that makes one CUDA graph of an inference.

    Raises:
        BackendError: this version of TensorRT-RTX has no CUDA graphs.
    """
    if not hasattr(trt, "CudaGraphStrategy"):
        raise BackendError(
            f"TensorRT-RTX {trt.__version__} has no CUDA graphs; 1.2 is the first that has.",
            fix=f"{PIP} --upgrade tensorrt-rtx-cu13, or leave --cuda-graph out",
        )
    return trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
