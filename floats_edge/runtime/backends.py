"""Which backends there are, which of them this machine has, and how to open a bundle on one."""

import logging
import shlex
from pathlib import Path

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle, open_bundle, rebuild_command
from floats_edge.errors import BackendError, ParityError
from floats_edge.runtime.base import DEFAULT_HOST, Host, Predictor

log = logging.getLogger("floats_edge.runtime")

BACKENDS = ("ort-cpu", "ort-cuda", "ort-rtx", "trt")


def unavailable_reason(backend: str, bundle: Bundle | None = None) -> str | None:
    """Why ``backend`` cannot run here (or cannot run ``bundle``), or None where it can."""
    if backend == "trt":
        from floats_edge.runtime.trt import trt_unavailable_reason

        return trt_unavailable_reason(bundle)
    from floats_edge.runtime.ort_providers import provider_problem

    problem = provider_problem(backend)
    if problem is not None:
        return problem
    if bundle is not None and bundle.manifest.precision == "bf16" and backend == "ort-cpu":
        return "ONNX Runtime has no bf16 kernels for the CPU, and emulation takes a time that says nothing"
    return None


def open_predictor(bundle: Bundle, backend: str, lam: float, host: Host = DEFAULT_HOST) -> Predictor:
    """Load ``bundle`` on ``backend`` with ``lam`` in force; ``host`` says how it may use this machine.

    Raises:
        BackendError: the backend is not one of :data:`BACKENDS`, is not here, or cannot load the bundle.
        ArtifactError: a file of the bundle is not what was exported.
        LambdaError: the bundle does not serve ``lam``.
        ParityError: ``floats-edge verify`` found that the bundle does not compute there what it should.
    """
    if backend not in BACKENDS:
        raise BackendError(f"there is no backend {backend!r}.", fix=f"choose one of {', '.join(BACKENDS)}")
    check_verdict(bundle, backend)
    if bundle.manifest.mismatch is not None:
        log.warning("%s was exported with --allow-mismatch: %s", bundle.path, bundle.manifest.mismatch)
    predictor = _opened(bundle, backend, lam, host)
    predictor.labels = bundle.manifest.output.labels
    return predictor


def _opened(bundle: Bundle, backend: str, lam: float, host: Host) -> Predictor:
    if backend == "trt":
        from floats_edge.runtime.trt import open_trt

        return open_trt(bundle, lam, host)
    reason = unavailable_reason(backend)
    if reason is not None:
        raise BackendError(f"{backend} cannot run here: {reason}.", fix="floats-edge doctor shows what is missing")
    from floats_edge.runtime.ort import open_ort

    return open_ort(bundle, backend, lam, host)


def load(bundle: str | Path, lam: float | None = None, backend: str = "auto", host: Host = DEFAULT_HOST) -> Predictor:
    """A bundle, ready to predict: ``network.predict_images(["a.jpg"])``; ``network.set_lambda(0.7)`` is more robust.

    On TensorRT it belongs to the thread that opened it.

    Args:
        bundle: its folder.
        lam: in force at first; None: the first that it serves, 0 if any.
        backend: ``ort-cpu``, ``ort-cuda``, ``ort-rtx`` or ``trt``; ``auto``: its TensorRT engines where one runs, else
            ``ort-cpu``; the log says why they do not run.
        host: how it may use this machine.

    Raises:
        ArtifactError: it is no bundle, or a file is not what was exported.
        BackendError: the backend cannot run it here.
        LambdaError: it does not serve ``lam``.
        ParityError: ``floats-edge verify`` found that it does not compute there what it should.
    """
    opened = open_bundle(Path(bundle))
    served = opened.manifest.lam.values or (0.0,)
    lam = served[0] if lam is None else lam
    if backend != "auto":
        return open_predictor(opened, backend, lam, host)
    if opened.manifest.engines:
        try:
            return open_predictor(opened, "trt", lam, host)
        except (BackendError, ParityError) as error:
            if unavailable_reason("ort-cpu", opened) is not None:
                raise
            log.warning("%s runs on the CPU, by ONNX Runtime: %s", opened.path, error)
    return open_predictor(opened, "ort-cpu", lam, host)


def open_traced(bundle: Bundle, backend: str, lam: float, threads: int | None, folder: Path) -> Predictor:
    """Like :func:`open_predictor`, such that ``kernels`` can be asked; traces go to ``folder``."""
    return open_predictor(bundle, backend, lam, Host(threads, folder))


def library(bundle: Bundle, backend: str) -> str:
    """What runs a bundle on a backend that it runs on here, and its version.

    Raises:
        BackendError: it does not run here.
    """
    if backend == "trt":
        from floats_edge.runtime.trt import trt_library

        return trt_library(bundle)
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def check_verdict(bundle: Bundle, backend: str) -> None:
    """Let a bundle pass that did not fail ``floats-edge verify`` on ``backend``; the log names what was let pass.

    Raises:
        ParityError: it failed there.
    """
    verdict = bundle.manifest.verdict(backend)
    if verdict is None or not verdict.problems:
        return
    found = f"{bundle.path} failed floats-edge verify on {backend} ({verdict.library}): {' '.join(verdict.problems)}"
    if verdict.refused:
        mend = f"rebuild its engines: {rebuild_command(bundle)}" if backend == "trt" else EXPORT_AGAIN
        let_pass = f"floats-edge verify {shlex.quote(str(bundle.path))} --backend {backend} --allow-mismatch"
        raise ParityError(found, fix=f"{mend}; or, to use it all the same: {let_pass}")
    log.warning("%s It was let pass with --allow-mismatch.", found)
