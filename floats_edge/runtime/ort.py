"""Bundles on ONNX Runtime, on any of its execution providers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import BackendError
from floats_edge.runtime.base import Images, Logits, Predictor
from floats_edge.runtime.lambda_weights import LambdaWeights, bundle_weights

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDERS = {
    "ort-cpu": "CPUExecutionProvider",
    "ort-cuda": "CUDAExecutionProvider",
    "ort-trt": "TensorrtExecutionProvider",
}


def open_ort(bundle: Bundle, backend: str, lam: float) -> Predictor:
    """Load a bundle with the execution provider of ``backend``, a key of :data:`PROVIDERS`.

    Raises:
        ArtifactError: a file of the bundle is not what was exported.
        BackendError: ONNX Runtime cannot load it, or would run it on another provider.
    """
    manifest = bundle.manifest
    sessions = {graph.lam: _session(bundle.read(graph.file), backend) for graph in manifest.graphs}
    if manifest.lam.mode == "bound":
        return BoundOrtPredictor(sessions[None], bundle, backend, lam)
    assert manifest.lam.values is not None, "modes fixed and bank list their lambdas"
    return FixedOrtPredictor({value: sessions[value] for value in manifest.lam.values}, bundle, backend, lam)


class FixedOrtPredictor(Predictor):
    """Modes ``fixed`` and ``bank``: one session per lambda, all loaded; switching picks another."""

    def __init__(
        self, sessions: Mapping[float, "ort.InferenceSession"], bundle: Bundle, backend: str, lam: float
    ) -> None:
        lambdas = tuple(sessions)
        super().__init__(backend, bundle.manifest.input.shape, lambdas, lambdas[0])
        self._sessions = sessions
        self._names = (bundle.manifest.input.name, bundle.manifest.output.name)
        self._session = sessions[lambdas[0]]
        self.set_lambda(lam)

    def _switch(self, lam: float) -> None:
        self._session = self._sessions[lam]

    def _infer(self, images: Images) -> Logits:
        image_name, logits_name = self._names
        return np.asarray(self._session.run([logits_name], {image_name: images})[0])


class BoundOrtPredictor(Predictor):
    """Mode ``bound``: one weightless session whose weight inputs are bound once to buffers that hold W(lam)."""

    def __init__(self, session: "ort.InferenceSession", bundle: Bundle, backend: str, lam: float) -> None:
        import onnxruntime as ort

        super().__init__(backend, bundle.manifest.input.shape, None, 0.0)
        self._session = session
        self._names = (bundle.manifest.input.name, bundle.manifest.output.name)
        self._weights: LambdaWeights = bundle_weights(bundle)
        dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        device = "cpu" if backend == "ort-cpu" else "cuda"
        self._binding = session.io_binding()
        self._buffers: dict[str, ort.OrtValue] = {}
        for name, array in self._weights.at(0.0).items():
            self._buffers[name] = ort.OrtValue.ortvalue_from_numpy(array.astype(dtype), device, 0)
            self._binding.bind_ortvalue_input(name, self._buffers[name])
        self._dtype = dtype
        self.set_lambda(lam)

    def _switch(self, lam: float) -> None:
        for name, array in self._weights.at(lam).items():
            self._buffers[name].update_inplace(array.astype(self._dtype, copy=False))

    def _infer(self, images: Images) -> Logits:
        image_name, logits_name = self._names
        self._binding.bind_cpu_input(image_name, images)
        self._binding.bind_output(logits_name)
        self._session.run_with_iobinding(self._binding)
        return self._binding.copy_outputs_to_cpu()[0]


def _session(model: bytes, backend: str) -> "ort.InferenceSession":
    import onnxruntime as ort

    provider = PROVIDERS[backend]
    options = ort.SessionOptions()
    options.log_severity_level = 3
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
