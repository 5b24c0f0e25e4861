"""Execution providers of ONNX Runtime, and whether they run here.

ONNX Runtime's package for GPUs lists its CUDA provider also where there is no GPU, or no CUDA to load. A session then
goes to the CPU unless that is forbidden, and a tensor on the device is a bare RuntimeError: so a graph of one node is
run on the provider before anything else is. That has not run on a GPU so far.
"""

import functools
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from floats_edge.errors import BackendError
from floats_edge.runtime import ort_rtx

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDERS = {"ort-cpu": "CPUExecutionProvider", "ort-cuda": "CUDAExecutionProvider", "ort-rtx": ort_rtx.PROVIDER}
"""Execution provider by backend."""

_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""TF32 is on by default; fp32 is to mean float32, not 10 bits of mantissa."""
_ALONE = ("session.disable_cpu_ep_fallback", "1")
"""What the provider of a session does not run is an error."""


def on_gpu(backend: str) -> bool:
    """Whether a backend computes on the GPU."""
    return backend != "ort-cpu"


def may_open_gpu(backend: str) -> bool:
    """Whether :func:`provider_problem` may open a GPU: only for a provider that is installed and runs on one."""
    if backend == "ort-rtx":
        return ort_rtx.plugin_is_installed()
    try:
        return on_gpu(backend) and _is_built_in(backend)
    except ImportError:
        return False


def _is_built_in(backend: str) -> bool:
    import onnxruntime as ort

    return PROVIDERS[backend] in ort.get_available_providers()


def provider_problem(backend: str) -> str | None:
    """Why the execution provider of ``backend`` does not run here, or None where it does."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        return f"onnxruntime cannot be imported: {error}"
    provider = PROVIDERS[backend]
    if backend != "ort-rtx" and not _is_built_in(backend):
        return f"this onnxruntime has no {provider}"
    if not on_gpu(backend):
        return None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session_on(backend, _one_node(), options).run(None, {"x": np.zeros(1, np.float32)})
    except BackendError as error:
        return error.what.rstrip(".")
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises a class of its own per status code
        missing = _preload_cuda() if backend == "ort-cuda" else ""
        return f"onnxruntime {ort.__version__} cannot use its {provider}: {missing or str(error).splitlines()[0]}"
    return None


def session_on(backend: str, model: bytes, options: "ort.SessionOptions") -> "ort.InferenceSession":
    """A session on the provider of a backend; on a GPU, on that alone.

    Raises:
        BackendError: the provider is a plugin that cannot be had here.
        Exception: what ONNX Runtime raises, a class of its own per status code.
    """
    import onnxruntime as ort

    if on_gpu(backend):
        options.add_session_config_entry(*_ALONE)
    if backend == "ort-rtx":
        options.add_provider_for_devices([ort_rtx.rtx_device()], {})
        with ort_rtx.without_tf32():
            return ort.InferenceSession(model, options, enable_fallback=0)
    if backend == "ort-cuda":
        _preload_cuda()
    provider = PROVIDERS[backend]
    return ort.InferenceSession(model, options, providers=[(provider, _OPTIONS.get(provider, {}))], enable_fallback=0)


@functools.cache
def _preload_cuda() -> str:
    """Load the CUDA and cuDNN that pip has installed, where ONNX Runtime finds them later; what it says is missing."""
    import onnxruntime as ort

    told = StringIO()
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        with redirect_stdout(told):
            ort.preload_dlls()
    return "; ".join(line for line in told.getvalue().splitlines() if line.startswith("Failed"))


def _one_node() -> bytes:
    """A graph that hands on one number."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "one", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
