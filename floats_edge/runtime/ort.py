"""Bundles on ONNX Runtime, on any of its execution providers."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import LAMBDA_INPUT
from floats_edge.artifacts.records import Reading
from floats_edge.runtime.base import DEFAULT_HOST, Host, Images, Kernels, Logits, Predictor
from floats_edge.runtime.graph_check import check_constants, check_session, graph_bytes, read_graph
from floats_edge.runtime.lambda_weights import input_weights
from floats_edge.runtime.ort_providers import on_gpu
from floats_edge.runtime.ort_session import BoundSession, is_emulated, open_session, ort_value

if TYPE_CHECKING:
    import onnxruntime as ort

Serve = Callable[[float], BoundSession]
"""The session that serves a lambda; asked whenever lambda changes."""


def open_ort(bundle: Bundle, backend: str, lam: float, host: Host = DEFAULT_HOST) -> "OrtPredictor":
    """Load a bundle with the execution provider of ``backend``, a key of ``ort_providers.PROVIDERS``.

    Args:
        bundle: what to load.
        backend: what to load it on.
        lam: the lambda in force.
        host: how it may use this machine.

    Raises:
        ArtifactError: a file of the bundle is not what was exported, or a graph is not the one of its manifest.
        BackendError: ONNX Runtime cannot load it, or would run it on another provider.
        LambdaError: ``lam`` is not served by this bundle.
    """
    by_mode: dict[str, Callable[[Bundle, str, Host], Serve]] = {
        "fixed": _bank,
        "bank": _bank,
        "bound": _bound,
        "input": _input,
        "refit": _refit,
    }
    predictor = OrtPredictor(bundle, backend, by_mode[bundle.manifest.lam.mode](bundle, backend, host), host)
    predictor.set_lambda(lam)
    return predictor


class OrtPredictor(Predictor):
    """A bundle in any lambda mode: what a change of lambda does is up to ``serve``."""

    device_includes = "images and logits on the GPU, by the host's clock until the GPU is done"

    def __init__(self, bundle: Bundle, backend: str, serve: Serve, host: Host) -> None:
        name = f"{backend}, bf16 emulated" if is_emulated(bundle, backend) else backend
        lambdas = bundle.manifest.lam.values
        super().__init__(name, bundle.manifest.input.preprocessing, lambdas, lambdas[0] if lambdas else 0.0)
        self.threads = host.threads
        self.computes_on = "gpu" if on_gpu(backend) else "cpu"
        self._serve = serve
        self._session = serve(self.lam)

    def _switch(self, lam: float) -> None:
        self._session = self._serve(lam)

    def _infer(self, images: Images) -> Logits:
        return self._session.infer(images)

    def device_ms(self, images: Images) -> float | None:
        return self._session.device_ms(images)

    def memory(self) -> dict[str, Reading]:
        reason = "ONNX Runtime's Python API tells neither the size of its arena nor that of its weights and activations"
        return {"engine": Reading(value=None, unit="MiB", source=reason)}

    def kernels(self, images: Images, count: int) -> Kernels | None:
        return self._session.kernels(images, count)


def _bank(bundle: Bundle, backend: str, host: Host) -> Serve:
    """Modes ``fixed`` and ``bank``: one session per lambda, all loaded; switching picks another."""
    sessions: dict[float | None, BoundSession] = {
        graph.lam: BoundSession(open_session(graph_bytes(bundle, graph.file), bundle, backend, host), bundle, backend)
        for graph in bundle.manifest.graphs
    }
    for each in sessions.values():
        check_session(each.session, bundle)
    return sessions.__getitem__


def _bound(bundle: Bundle, backend: str, host: Host) -> Serve:
    """Mode ``bound``: one weightless session whose weight inputs are bound once to buffers that hold W(lam)."""
    weights = input_weights(bundle, host.threads)
    opened = open_session(graph_bytes(bundle, bundle.manifest.graphs[0].file), bundle, backend, host)
    check_session(opened, bundle, weights.at(0.0))
    on_device = on_gpu(backend)
    values = {name: ort_value(array, on_device=on_device) for name, array in weights.at(0.0).items()}
    session = BoundSession(opened, bundle, backend, values)

    def serve(lam: float) -> BoundSession:
        arrays = weights.at(lam)  # on the CPU these are what the session reads
        if on_device:
            for name in weights.varying:
                values[name].update_inplace(arrays[name])
        return session

    return serve


def _input(bundle: Bundle, backend: str, host: Host) -> Serve:
    """Mode ``input``: lambda is an input beside the images, and every inference computes the weights anew."""
    lam_in_force = np.zeros((), dtype=np.float32)
    opened = open_session(graph_bytes(bundle, bundle.manifest.graphs[0].file), bundle, backend, host)
    check_session(opened, bundle, {LAMBDA_INPUT: lam_in_force})
    others: dict[str, ort.OrtValue] = {LAMBDA_INPUT: ort_value(lam_in_force, on_device=False)}
    session = BoundSession(opened, bundle, backend, others)

    def serve(lam: float) -> BoundSession:
        lam_in_force[...] = lam
        return session

    return serve


def _refit(bundle: Bundle, backend: str, host: Host) -> Serve:
    """Mode ``refit``: ONNX Runtime cannot refit a session, so switching makes a new one with the weights at lambda."""
    weights = input_weights(bundle, host.threads)
    model = read_graph(bundle, bundle.manifest.graphs[0].file)
    check_constants(model, bundle, weights.at(0.0))

    def serve(lam: float) -> BoundSession:
        arrays = weights.at(lam)
        for tensor in model.graph.initializer:
            if tensor.name in arrays:
                tensor.raw_data = arrays[tensor.name].tobytes()
        session = open_session(model.SerializeToString(), bundle, backend, host)
        check_session(session, bundle)
        return BoundSession(session, bundle, backend)

    return serve
