"""What TensorRT and CUDA tell of the memory that an engine takes.

Never run on a GPU so far: tested against a stand-in of TensorRT that is built to NVIDIA's API reference.
"""

from collections.abc import Sequence
from typing import Any

from floats_edge.artifacts.records import Reading
from floats_edge.runtime.cuda_device import Cuda


def engine_memory(
    trt: Any, engines: Sequence[Any], plan_bytes: int, cuda: Cuda, free_before: int
) -> dict[str, Reading]:
    """Memory of loaded engines with one execution context each, in MiB by part.

    Args:
        trt: the module of their flavour.
        engines: all that are loaded.
        plan_bytes: of their files.
        cuda: that holds the buffers of images, logits, lambda, and weights bound or staged for refitting.
        free_before: bytes of device memory that were free before they were loaded.
    """
    free, _ = cuda.memory_info()
    context = [getattr(engine, "device_memory_size_v2", None) for engine in engines]
    return {
        "engine plan": _mib(plan_bytes, "size of the plans on disk"),
        "engine weights": _weights(trt, engines),
        "engine activations and workspace": _sum(
            context, "ICudaEngine.device_memory_size_v2, one execution context; TensorRT does not tell the two apart"
        ),
        "buffers on the GPU": _mib(
            cuda.allocated, "cudaMalloc of images, logits, lambda, and weights that are bound or staged for refitting"
        ),
        "page-locked buffers": _mib(
            cuda.page_locked, "cudaMallocHost of images, logits, and weights that are bound or staged for refitting"
        ),
        "GPU increase by cudaMemGetInfo": _mib(
            free_before - free, "cudaMemGetInfo, free memory before and after loading, all processes"
        ),
    }


def _weights(trt: Any, engines: Sequence[Any]) -> Reading:
    query = "ICudaEngine.get_engine_stat(TOTAL_WEIGHTS_SIZE)"
    if not hasattr(trt, "EngineStat"):
        return Reading(value=None, unit="MiB", source=f"TensorRT {trt.__version__} has no {query}")
    sizes = [engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE) for engine in engines]
    return _sum([size if size >= 0 else None for size in sizes], query)


def _sum(sizes: Sequence[int | None], source: str) -> Reading:
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return Reading(value=None, unit="MiB", source=f"not told by this version: {source}")
    return _mib(sum(known), source if len(sizes) == 1 else f"{source}, {len(sizes)} engines")


def _mib(size: int, source: str) -> Reading:
    return Reading(value=size / 2**20, unit="MiB", source=source)
