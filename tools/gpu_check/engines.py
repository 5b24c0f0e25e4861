"""Evaluation on CUDA, and every backend by mode and precision: what it computes, how fast, and at which cost."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_check.small import SMALL, write_images
from gpu_check.switch import switch
from gpu_check.told import CannotRunError, Told, attempt, need_cuda, tensorrt_row

if TYPE_CHECKING:
    from floats_edge.artifacts.bundle import Bundle
    from floats_edge.artifacts.records import Profile
    from floats_edge.artifacts.verification import Verification
    from floats_edge.profiling.stage import ProfileRequest

QUICK = (
    ("fixed", "fp32"), ("bound", "fp32"), ("fixed", "fp16"), ("bound", "fp16"), ("fixed", "int8"), ("bound", "int8"),
    ("bank", "fp16"), ("input", "fp16"), ("refit", "fp16"),
)  # fmt: skip
EVERY = tuple(
    (mode, precision)
    for mode in ("fixed", "bank", "bound", "input", "refit")
    for precision in ("fp32", "fp16", "bf16", "int8")
    if (mode, precision) != ("refit", "int8")  # there is no such thing
)
SURER = ("model.arguments.width=16", "train.epochs=8")
"""A network that is sure enough of its classes for int8."""
BATCHES = (1, 32)
"""Images per inference; engines take both at once, not in parts."""
IN_PARTS = 4 * max(BATCHES)
"""Images per inference that TensorRT takes in parts, whose copies overlap with what it computes: measured once."""
LAMBDAS: dict[str, Any] = {"fixed": (0.3,), "bank": (0.0, 0.5, 1.0)}
LOGITS = 1e-4
"""Of the range of the logits: what CUDA and the CPU may differ by in IEEE float32."""
MORE_IMAGES = 2.0
"""Percentage points by which accuracy on CUDA and the CPU may differ, as random starts of the attack do."""


def engines(told: Told, quick: bool) -> None:
    """Evaluation on CUDA against the CPU; every backend by mode and precision: what it computes, and how fast."""
    import floats_edge as fe
    from floats_edge.profiling.bench import Timing
    from floats_edge.profiling.isolation import run_isolated
    from floats_edge.runtime.backends import BACKENDS, unavailable_reason
    from floats_edge.runtime.base import Host

    reasons = {name: run_isolated(unavailable_reason, name) for name in BACKENDS if name != "ort-cpu"}
    for backend in (backend for backend, reason in reasons.items() if reason):
        told.find(backend, "skipped", reasons[backend] or "")
    here = [backend for backend, reason in reasons.items() if reason is None]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        images = write_images(place / "images")
        told.doing("training the network to export, on the CPU")
        run = fe.train("quickstart", place / "run", options=(*SMALL, *(SURER if here else ())), data=images)
        told.doing("evaluation")
        evaluation(told, run.path, images)
        attempt(told, "change of lambda, by its parts", None, lambda: switch(told))
        base = fe.export(run.path, place / "bound-fp32", fe.ExportRequest("runtime", "fp32"), data=images)
        if not here:
            told.find(
                "engines", "skipped", "no backend of a GPU runs here: one bundle on ort-cpu shows what is measured"
            )
            prove(told, base, "ort-cpu", images, [fe.ProfileRequest(timing=Timing(0.1, 0.3))])
        plain = fe.ProfileRequest(batches=BATCHES, timing=Timing(0.2, 0.5) if quick else Timing())
        graph = replace(plain, host=Host(cuda_graph=True))
        for mode, precision in (QUICK if quick else EVERY) if here else ():
            folder = place / f"{mode}-{precision}-engine"
            bundle = exported(told, base, folder, mode, precision, "trt" in here, images)
            for backend in here if bundle else ():
                requests = (plain, graph) if backend == "trt" and not quick else (plain,)
                if (backend, mode, precision) == ("trt", "fixed", "fp16"):
                    requests = [replace(request, batches=(*BATCHES, IN_PARTS)) for request in requests]
                prove(told, bundle, backend, images, requests)


def evaluation(told: Told, run: Path, images: Path) -> None:
    """A trained network in PyTorch on CUDA: its logits, and its accuracy, against the CPU's."""
    import numpy as np

    import floats_edge as fe
    from floats_edge.artifacts.checkpoint import open_run
    from floats_edge.float32 import float32_as
    from floats_edge.runtime.torch import run_predictor

    try:
        need_cuda()
    except CannotRunError as reason:
        told.find("evaluation on CUDA", "skipped", str(reason))
        return

    def apart() -> float:
        some = np.random.default_rng(0).random((64, 1, 16, 16), np.float32)
        found = []
        with float32_as("ieee"):
            for device in ("cuda", "cpu"):
                predictor = run_predictor(open_run(run), device)
                predictor.set_lambda(0.5)
                found.append(predictor.predict(some))
        return float(np.abs(found[0] - found[1]).max() / np.ptp(found[1]))

    def points() -> float:
        cuda, cpu = (fe.evaluate(run, fe.EvaluateRequest(device=device), images).results for device in ("cuda", "cpu"))
        pairs = [
            (getattr(a, kind), getattr(b, kind)) for a, b in zip(cuda, cpu, strict=True) for kind in ("clean", "robust")
        ]
        return max(abs(one.percent - other.percent) for one, other in pairs)

    for what, work, most, unit, n, how in (
        ("logits on CUDA against the CPU", apart, LOGITS, "of their range", 64, "lambda 0.5, IEEE float32"),
        ("accuracy on CUDA against the CPU", points, MORE_IMAGES, "points", 200, "clean and PGD-5 at 5 lambdas"),
    ):
        value = attempt(told, what, "training", work)
        if value is not None:
            why = f"largest difference, at most {most:g}; {how}"
            told.find(what, "passed" if value <= most else "failed", why, value, unit, n, "training")


def exported(
    told: Told, base: "Bundle", folder: Path, mode: str, precision: Any, trt: bool, images: Path
) -> "Bundle | None":
    """A bundle, with an engine where TensorRT is here; without one if it cannot be built.

    None where it fails the gate of its export, which is passed or failed on the CPU and says nothing of a GPU.
    """
    import floats_edge as fe
    from floats_edge.deploy.engine_request import EngineOptions
    from floats_edge.errors import ParityError

    switch: Any = mode if mode in ("input", "refit") else "bound"
    request = fe.ExportRequest(LAMBDAS.get(mode, "runtime"), precision, switch=switch)
    name = f"{mode} {precision}"
    told.doing(f"{name}: export")
    try:
        bundle = fe.export(base.path, folder, request, images)
    except ParityError as error:
        told.find(name, "skipped", f"this small network fails the gate of the export, on the CPU: {error.what}")
        return None
    if not trt:
        return bundle
    with_engine = replace(request, trt=True, engine=EngineOptions((1, 8, 32)))
    place = folder.with_name(f"{folder.name}-trt")
    built = attempt(told, f"{name}: engine", tensorrt_row(), lambda: fe.export(base.path, place, with_engine, images))
    return built or bundle


def prove(told: Told, bundle: "Bundle", backend: str, images: Path, requests: "Sequence[ProfileRequest]") -> None:
    """Golden outputs, parity, attacks, and profiles of a bundle on a backend."""
    import floats_edge as fe
    from floats_edge.profiling.isolation import run_isolated
    from floats_edge.runtime.backends import unavailable_reason

    what = f"{bundle.manifest.lam.mode} {bundle.manifest.precision} on {backend}"
    path = {"ort-cuda": "ort-cuda", "ort-rtx": "ort-rtx", "trt": tensorrt_row()}.get(backend)
    reason = run_isolated(unavailable_reason, backend, bundle)
    if reason is not None:
        told.find(what, "skipped", reason)
        return
    found = attempt(told, f"{what}: verify", path, lambda: run_isolated(verified, bundle.path, backend, images))
    if found is not None:
        error = max((parity.max_error for parity in found.parity), default=None)
        why = " ".join(found.problems) or (
            f"golden outputs at {len(found.golden_lambdas)} lambdas; largest difference of logits from the twin; "
            f"accuracy of {found.images} images, clean, under PGD and Square; {found.library}"
        )
        count = found.parity[0].images if found.parity else None
        verdict = "failed" if found.problems else "passed"
        told.find(f"{what}: verify", verdict, why, error, "of the logits' range", count, path)
    for request in (replace(request, backends=(backend,)) for request in requests):
        name = f"{what}, CUDA graph" if request.host.cuda_graph else what
        profile = attempt(told, f"{name}: profile", path, lambda: fe.profile(bundle.path, request))  # noqa: B023
        if profile is not None:
            told.line("records", profile.model_dump(mode="json"))
            _figures(told, name, profile, path)


def verified(bundle: Path, backend: str, images: Path) -> "Verification":
    """The proof of a bundle on a backend, for a process of its own."""
    import floats_edge as fe

    return fe.verify(bundle, fe.VerifyRequest(backend, images=50, queries=20), images)


def _figures(told: Told, name: str, profile: "Profile", path: str | None) -> None:
    """The figures of a profile that a reader looks for first; its record has all."""
    for run in profile.runs:
        what = f"{name}, batch {run.batch}"
        why = "; ".join([f"lambda {run.lam:g}", run.includes, *run.marks])
        told.find(f"{what}: latency, p50", "measured", why, run.latency_ms.p50, "ms", run.latency_ms.n, path)
        told.find(f"{what}: images/s", "measured", why, run.throughput, "images/s", run.latency_ms.n, path)
        if run.set_lambda_ms is not None:
            told.find(f"{what}: change of lambda, p50", "measured", "one switch", run.set_lambda_ms.p50, "ms",
                      run.set_lambda_ms.n, path)  # fmt: skip
        energy = run.energy["energy per inference"]
        told.find(f"{what}: energy per inference", "unknown" if energy.value is None else "measured", energy.source,
                  energy.value, energy.unit, path="sensors")  # fmt: skip
    runs = {run.batch: run for run in profile.runs}
    if IN_PARTS in runs:
        parts, whole = runs[IN_PARTS], runs[max(BATCHES)]
        why = f"batch {IN_PARTS} in overlapping parts against batch {whole.batch}, which the engine takes at once"
        told.find(f"{name}: images/s in parts", "measured", why, parts.throughput / whole.throughput, "times",
                  parts.latency_ms.n, path)  # fmt: skip
    for what, reason in profile.skipped.items():
        told.find(f"{name}: {what}", "skipped", reason)
