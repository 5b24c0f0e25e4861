"""Execution providers of ONNX Runtime, and whether they run here.

ONNX Runtime's package for GPUs lists its CUDA provider also where there is no GPU, or no CUDA to load. A session then
goes to the CPU unless that is forbidden, and a tensor on the device is a bare RuntimeError: so a graph of one node is
run on the provider before anything else is. That has not run on a GPU so far.
"""

import functools
from contextlib import redirect_stdout
from io import StringIO

import numpy as np

PROVIDERS = {"ort-cpu": "CPUExecutionProvider", "ort-cuda": "CUDAExecutionProvider"}
"""Execution provider by backend."""

ON_ITS_PROVIDER_ALONE = ("session.disable_cpu_ep_fallback", "1")
"""For the options of a session: what its provider does not run is an error."""


def on_gpu(backend: str) -> bool:
    """Whether a backend computes on the GPU."""
    return backend != "ort-cpu"


def provider_problem(backend: str) -> str | None:
    """Why the execution provider of ``backend`` does not run here, or None where it does."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        return f"onnxruntime cannot be imported: {error}"
    provider = PROVIDERS[backend]
    if provider not in ort.get_available_providers():
        return f"this onnxruntime has no {provider}"
    if not on_gpu(backend):
        return None
    missing = preload_cuda()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(*ON_ITS_PROVIDER_ALONE)
    try:
        session = ort.InferenceSession(_one_node(), options, providers=[provider], enable_fallback=0)
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises a class of its own per status code
        return f"onnxruntime {ort.__version__} cannot use its {provider}: {missing or str(error).splitlines()[0]}"
    return None


@functools.cache
def preload_cuda() -> str:
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
