"""The profiling stage: one bundle by itself, or several against each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.records import Comparison, Profile
from floats_edge.errors import BackendError
from floats_edge.profiling.bench import Open, Timing
from floats_edge.profiling.compare import Schedule, compare_bundles
from floats_edge.profiling.estimate import estimate_bundle
from floats_edge.profiling.isolation import run_isolated
from floats_edge.profiling.profile import Plan, profile_bundle
from floats_edge.runtime.backends import BACKENDS, open_predictor, open_traced, unavailable_reason
from floats_edge.runtime.base import DEFAULT_HOST, Host
from floats_edge.runtime.ort_providers import PROVIDERS, may_open_gpu

_FASTEST_FIRST = ("trt", "ort-rtx", "ort-cuda", "ort-cpu")


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure of one bundle.

    Attributes:
        backends: that run it; none: every one that this machine has.
        batches: images per inference.
        streams: predictors that run at the same time, each in a thread and with a network of its own.
        lam: lambda in force; None: the first that the bundle serves, 0.5 if any.
        timing: how long.
        host: how predictors may use the machine.
        boards: of which the record is also to say what they cannot beat on paper.
    """

    backends: Sequence[str] = ()
    batches: Sequence[int] = (1,)
    streams: Sequence[int] = (1,)
    lam: float | None = None
    timing: Timing = field(default_factory=Timing)
    host: Host = DEFAULT_HOST
    boards: Sequence[str] = ()


@dataclass(frozen=True)
class CompareRequest:
    """How several bundles are measured in turn.

    Attributes:
        backend: that runs all of them; None: the fastest that does.
        batch: images per inference.
        lam: as for :class:`ProfileRequest`.
        timing: how long.
        host: how predictors may use the machine.
    """

    backend: str | None = None
    batch: int = 1
    lam: float | None = None
    timing: Timing = field(default_factory=Timing)
    host: Host = DEFAULT_HOST


def profile(
    path: str | Path, request: ProfileRequest | None = None, tell: Callable[[str], None] = lambda step: None
) -> Profile:
    """Measure how fast a bundle runs on this machine and what it takes.

    Args:
        path: the bundle.
        request: what to measure; None: every backend, one image at a time.
        tell: told what is measured next.

    Raises:
        ArtifactError: ``path`` is no bundle, or a file of it is not what was exported.
        LambdaError: the bundle does not serve the lambda.
        BackendError: nothing could be measured.
        KeyboardInterrupt: before anything was measured; later it ends the profile early.
    """
    request, bundle = request or ProfileRequest(), open_bundle(Path(path))
    wanted = request.backends or BACKENDS
    reasons = {backend: _unavailable(backend, bundle) for backend in wanted}
    here = [backend for backend in wanted if reasons[backend] is None]
    lam = _lambda(bundle, request.lam)
    plan = Plan(
        openers={backend: partial(open_predictor, bundle, backend, lam, request.host) for backend in here},
        tracers={backend: partial(open_traced, bundle, backend, lam, request.host.threads) for backend in here},
        batches=request.batches,
        streams=request.streams,
        timing=request.timing,
        unavailable={backend: reason for backend, reason in reasons.items() if reason is not None},
        estimates=estimate_bundle(bundle, request.boards, request.batches),
    )
    return profile_bundle(bundle, plan, tell)


def compare_speed(
    paths: Sequence[str | Path],
    request: CompareRequest | None = None,
    tell: Callable[[str], None] = lambda step: None,
) -> Comparison:
    """Measure several bundles in turn, so that what else the machine does meets all of them alike.

    Args:
        paths: the bundles.
        request: how they are measured; None: on the fastest backend that runs all, one image at a time.
        tell: told what is measured next.

    Raises:
        ArtifactError: one is no bundle, or a file of it is not what was exported.
        LambdaError: one does not serve the lambda.
        BackendError: no backend runs all of them here.
    """
    request, bundles = request or CompareRequest(), [open_bundle(Path(path)) for path in paths]
    reasons: dict[str, str] = {}
    for backend in (request.backend,) if request.backend else _FASTEST_FIRST:
        problems = [reason for bundle in bundles if (reason := _unavailable(backend, bundle))]
        if problems:
            reasons[backend] = problems[0]
            continue
        openers: list[Open] = [
            partial(open_predictor, bundle, backend, _lambda(bundle, request.lam), request.host) for bundle in bundles
        ]
        return compare_bundles(bundles, openers, request.batch, Schedule(request.timing), tell)
    raise BackendError(
        f"no backend runs all of these bundles here. {'; '.join(f'{b}: {why}' for b, why in reasons.items())}",
        fix="floats-edge doctor shows what is missing",
    )


def _lambda(bundle: Bundle, lam: float | None) -> float:
    """The lambda to measure a bundle at."""
    if lam is not None:
        return lam
    return bundle.manifest.lam.values[0] if bundle.manifest.lam.values else 0.5


def _unavailable(backend: str, bundle: Bundle) -> str | None:
    """Why a backend cannot run a bundle here, or None where it can.

    What may open the GPU is asked in a process of its own: an open GPU costs memory and power until its process ends.
    """
    if backend in PROVIDERS and not may_open_gpu(backend):
        return unavailable_reason(backend, bundle)
    try:
        return run_isolated(unavailable_reason, backend, bundle)
    except BackendError as error:
        return error.what
