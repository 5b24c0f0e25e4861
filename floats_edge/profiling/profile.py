"""The stage: every backend at every batch size, each in a process of its own; one that fails does not stop the rest."""

from collections.abc import Callable, Mapping, Sequence

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.records import Profile, Reading, Run, bundle_subject
from floats_edge.errors import BackendError
from floats_edge.profiling.bench import Open, Timing, measure_run
from floats_edge.profiling.conditions import read_conditions
from floats_edge.profiling.isolation import run_isolated


def profile_bundle(
    bundle: Bundle,
    openers: Mapping[str, Open],
    batches: Sequence[int],
    timing: Timing,
    *,
    unavailable: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Profile:
    """Measure a bundle.

    Args:
        bundle: what is measured.
        openers: by backend, a picklable function that opens it at the lambda to be measured.
        batches: images per inference.
        timing: how long to measure.
        unavailable: backends that were asked for and cannot run here, with the reason; they go into the record.
        progress: told what is measured next.

    Raises:
        ArtifactError: a file of the bundle is not what was exported.
        LambdaError: the bundle does not serve the lambda.
        BackendError: nothing could be measured.
    """
    conditions = read_conditions()
    runs: list[Run] = []
    skipped = dict(unavailable or {})
    for backend, opener in openers.items():
        for batch in batches:
            step = f"{backend}, batch {batch}"
            progress(step)
            try:
                runs.append(run_isolated(measure_run, opener, batch, timing))
            except BackendError as error:
                skipped[step] = error.what
    if not runs:
        reasons = "; ".join(f"{step}: {reason}" for step, reason in skipped.items()) or "no backend was asked for"
        raise BackendError(f"nothing could be measured. {reasons}", fix="floats-edge doctor shows what is missing")
    return Profile(
        subject=bundle_subject(bundle),
        size=_sizes(bundle),
        conditions=conditions,
        runs=tuple(runs),
        skipped=skipped,
    )


def _sizes(bundle: Bundle) -> dict[str, Reading]:
    """Bytes on disk by part; parts a bundle has none of are left out."""
    manifest = bundle.manifest
    parts = {
        "ONNX graphs": [graph.file for graph in manifest.graphs],
        "weights": [manifest.weights] if manifest.weights else [],
        "TensorRT engines": [engine.file for engine in manifest.engines],
        "whole bundle": list(manifest.files),
    }
    return {
        part: Reading(
            value=sum(manifest.files[name].bytes for name in names),
            unit="bytes",
            source=f"manifest.json, {len(names)} file{'s' if len(names) > 1 else ''}",
        )
        for part, names in parts.items()
        if names
    }
