"""Bundles on ONNX Runtime, on any of its execution providers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import LAMBDA_INPUT
from floats_edge.errors import BackendError
from floats_edge.runtime.base import DEFAULT_HOST, Host, Images, Kernels, Logits, Predictor
from floats_edge.runtime.graph_check import check_constants, check_session
from floats_edge.runtime.lambda_weights import input_weights

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDERS = {
    "ort-cpu": "CPUExecutionProvider",
    "ort-cuda": "CUDAExecutionProvider",
    "ort-trt": "TensorrtExecutionProvider",
}
_BFLOAT16 = 16
"""``onnx.TensorProto.BFLOAT16``."""
_KERNEL = "_kernel_time"
"""How ONNX Runtime's trace ends the name of what a node computed."""


def open_ort(bundle: Bundle, backend: str, lam: float, host: Host = DEFAULT_HOST) -> Predictor:
    """Load a bundle with the execution provider of ``backend``, a key of :data:`PROVIDERS`.

    Args:
        bundle: what to load.
        backend: what to load it on.
        lam: the lambda in force.
        host: how it may use this machine.

    Raises:
        ArtifactError: a file of the bundle is not what was exported, or a graph is not the one of its manifest.
        BackendError: ONNX Runtime cannot load it, or would run it on another provider.
    """
    manifest = bundle.manifest
    if manifest.lam.mode == "refit":
        return RefitOrtPredictor(bundle, backend, lam, host)
    sessions = {graph.lam: _session(bundle.read(graph.file), bundle, backend, host) for graph in manifest.graphs}
    if manifest.lam.mode == "bound":
        predictor = BoundOrtPredictor(sessions[None], bundle, backend, lam)
    elif manifest.lam.mode == "input":
        predictor = InputOrtPredictor(sessions[None], bundle, backend, lam)
    else:
        assert manifest.lam.values is not None, "modes fixed and bank list their lambdas"
        served = {value: sessions[value] for value in manifest.lam.values}
        predictor = FixedOrtPredictor(served, bundle, backend, lam)
    predictor.threads = host.threads
    return predictor


class FixedOrtPredictor(Predictor):
    """Modes ``fixed`` and ``bank``: one session per lambda, all loaded; switching picks another."""

    def __init__(
        self, sessions: Mapping[float, "ort.InferenceSession"], bundle: Bundle, backend: str, lam: float
    ) -> None:
        lambdas = tuple(sessions)
        super().__init__(_backend_name(bundle, backend), bundle.manifest.input.shape, lambdas, lambdas[0])
        for each in sessions.values():
            check_session(each, bundle)
        self._sessions = sessions
        self._names = (bundle.manifest.input.name, bundle.manifest.output.name)
        self._session = sessions[lambdas[0]]
        self.set_lambda(lam)

    def _switch(self, lam: float) -> None:
        self._session = self._sessions[lam]

    def _infer(self, images: Images) -> Logits:
        image_name, logits_name = self._names
        return np.asarray(self._session.run([logits_name], {image_name: images})[0])

    def kernels(self, images: Images, count: int) -> Kernels | None:
        return _traced(self, self._session, images, count)


class BoundOrtPredictor(Predictor):
    """Mode ``bound``: one weightless session whose weight inputs are bound once to buffers that hold W(lam)."""

    def __init__(self, session: "ort.InferenceSession", bundle: Bundle, backend: str, lam: float) -> None:
        super().__init__(_backend_name(bundle, backend), bundle.manifest.input.shape, None, 0.0)
        self._session = session
        self._names = (bundle.manifest.input.name, bundle.manifest.output.name)
        self._weights = input_weights(bundle)
        check_session(session, bundle, self._weights.at(0.0))
        self._on_device = backend != "ort-cpu"
        self._binding = session.io_binding()
        self._values: dict[str, ort.OrtValue] = {}
        for name, array in self._weights.at(0.0).items():
            self._values[name] = _ort_value(array, on_device=self._on_device)
            self._binding.bind_ortvalue_input(name, self._values[name])
        self.set_lambda(lam)

    def _switch(self, lam: float) -> None:
        arrays = self._weights.at(lam)  # on the CPU these are what the session reads
        if self._on_device:
            for name, array in arrays.items():
                self._values[name].update_inplace(array)

    def _infer(self, images: Images) -> Logits:
        image_name, logits_name = self._names
        self._binding.bind_cpu_input(image_name, images)
        self._binding.bind_output(logits_name)
        self._session.run_with_iobinding(self._binding)
        return self._binding.copy_outputs_to_cpu()[0]

    def kernels(self, images: Images, count: int) -> Kernels | None:
        return _traced(self, self._session, images, count)


class InputOrtPredictor(Predictor):
    """Mode ``input``: lambda is fed with the images, and every inference computes the weights anew."""

    def __init__(self, session: "ort.InferenceSession", bundle: Bundle, backend: str, lam: float) -> None:
        super().__init__(_backend_name(bundle, backend), bundle.manifest.input.shape, None, 0.0)
        self._session = session
        self._names = (bundle.manifest.input.name, bundle.manifest.output.name)
        self._lambda = np.zeros((), dtype=np.float32)
        check_session(session, bundle, {LAMBDA_INPUT: self._lambda})
        self.set_lambda(lam)

    def _switch(self, lam: float) -> None:
        self._lambda[...] = lam

    def _infer(self, images: Images) -> Logits:
        image_name, logits_name = self._names
        return np.asarray(self._session.run([logits_name], {image_name: images, LAMBDA_INPUT: self._lambda})[0])

    def kernels(self, images: Images, count: int) -> Kernels | None:
        return _traced(self, self._session, images, count)


class RefitOrtPredictor(Predictor):
    """Mode ``refit``: ONNX Runtime cannot refit a session, so switching makes a new one with the weights at lambda."""

    def __init__(self, bundle: Bundle, backend: str, lam: float, host: Host = DEFAULT_HOST) -> None:
        import onnx

        super().__init__(_backend_name(bundle, backend), bundle.manifest.input.shape, None, 0.0)
        self.threads = host.threads
        self._bundle, self._provider, self._host = bundle, backend, host
        self._names = (bundle.manifest.input.name, bundle.manifest.output.name)
        self._weights = input_weights(bundle)
        self._model = onnx.load_model_from_string(bundle.read(bundle.manifest.graphs[0].file))
        check_constants(self._model, bundle, self._weights.at(0.0))
        self._switch(self.lam)
        check_session(self._session, bundle)
        self.set_lambda(lam)

    def _switch(self, lam: float) -> None:
        arrays = self._weights.at(lam)
        for tensor in self._model.graph.initializer:
            if tensor.name in arrays:
                tensor.raw_data = arrays[tensor.name].tobytes()
        self._session = _session(self._model.SerializeToString(), self._bundle, self._provider, self._host)

    def _infer(self, images: Images) -> Logits:
        image_name, logits_name = self._names
        return np.asarray(self._session.run([logits_name], {image_name: images})[0])

    def kernels(self, images: Images, count: int) -> Kernels | None:
        return _traced(self, self._session, images, count)


def _traced(predictor: Predictor, session: "ort.InferenceSession", images: Images, count: int) -> Kernels | None:
    """Times of the kernels of ``count`` inferences, by the session's trace; None unless opened to be traced."""
    if not session.get_session_options().enable_profiling:
        return None
    for _ in range(count):
        predictor.predict(images)
    times: dict[str, list[float]] = {}
    for event in json.loads(Path(session.end_profiling()).read_bytes()):
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            times.setdefault(event["name"].removesuffix(_KERNEL), []).append(event["dur"])
    last = {kernel: durations[-count:] for kernel, durations in times.items()}
    return Kernels(last, "ONNX Runtime's profiler", frozenset())  # it has no kernels for 2:4 weights


def _backend_name(bundle: Bundle, backend: str) -> str:
    """``backend``, and how it runs what it has no kernels for."""
    return f"{backend}, bf16 emulated" if _is_emulated(bundle, backend) else backend


def _is_emulated(bundle: Bundle, backend: str) -> bool:
    return bundle.manifest.precision == "bf16" and backend == "ort-cpu"


def _ort_value(array: NDArray[Any], *, on_device: bool) -> "ort.OrtValue":
    """A graph input; on the CPU it shares the array's memory. NumPy's uint16 stands for bfloat16."""
    import onnxruntime as ort

    if array.dtype == np.uint16:
        if on_device:
            raise BackendError(
                "bound weights in bf16 are not supported on ONNX Runtime's GPU providers.",
                fix="use --backend trt, or export with --precision fp16",
            )
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array, "cuda" if on_device else "cpu", 0)


def _session(model: bytes, bundle: Bundle, backend: str, host: Host) -> "ort.InferenceSession":
    import onnxruntime as ort

    if _is_emulated(bundle, backend):
        from floats_edge.runtime.bfloat16 import emulated

        model = emulated(model)
    provider = PROVIDERS[backend]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if host.threads is not None:
        options.intra_op_num_threads = host.threads
    if host.trace_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(host.trace_to / "trace")
    if provider != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # ONNX Runtime raises a class of its own per status code
        raise BackendError(
            f"ONNX Runtime cannot load the graph on {provider}: {error}",
            fix="floats-edge doctor shows what this machine runs; export again if the bundle is old",
        ) from error
    if session.get_providers()[0] != provider:
        raise BackendError(
            f"ONNX Runtime would run on {session.get_providers()[0]} instead of {provider}.",
            fix="install an onnxruntime with that provider; floats-edge doctor shows what is here",
        )
    return session
