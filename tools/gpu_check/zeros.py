"""A 2:4 network against its dense twin: what TensorRT makes of the zeros, and the measured ratio of latencies."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_check.small import SMALL, write_images
from gpu_check.told import CannotRunError, Told, attempt, need_cuda, need_driver, tensorrt_row

if TYPE_CHECKING:
    from floats_edge.artifacts.bundle import Bundle

WIDE = ("model.arguments.width=256", "train.epochs=8")
"""A network wide enough for 2:4 to pay, as it rarely does with fewer channels, and sure enough of its classes."""
TWINS = {"dense": ("name=dense", "sparsity.density=1"), "2-4": ("name=2-4", "sparsity={pattern: '2:4'}")}
"""Recipe overrides of two networks of the same shapes."""
PRECISIONS = ("fp16", "int8")
BATCH = 32


def zeros(told: Told, quick: bool) -> None:
    """Engines of both in precisions that have sparse kernels; TensorRT may choose these where it finds them faster."""
    import floats_edge as fe
    from floats_edge.profiling.isolation import run_isolated
    from floats_edge.runtime.backends import unavailable_reason

    need_driver()
    if quick:
        raise CannotRunError("it takes longer than --quick gives; run tools/gpu without --quick")
    need_cuda()
    reason = run_isolated(unavailable_reason, "trt")
    if reason is not None:
        raise CannotRunError(reason)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        images = write_images(place / "images")
        runs: dict[str, Path] = {}
        for name, options in TWINS.items():
            told.doing(f"training the {name} network")
            run = fe.train("quickstart", place / name, options=(*SMALL, *WIDE, *options), data=images, device="cuda")
            runs[name] = run.path
        for precision in PRECISIONS:
            dense, sparse = (built(told, name, run, precision, images) for name, run in runs.items())
            if dense and sparse:
                against_dense(told, dense, sparse)


def built(told: Told, name: str, run: Path, precision: Any, images: Path) -> "Bundle | None":
    """A network at lambda 0.3 with its engine; None where it cannot be built."""
    import floats_edge as fe
    from floats_edge.deploy.engine_request import EngineOptions

    what, place = f"{name} {precision}", run.with_name(f"{name}-{precision}")
    graph = fe.ExportRequest((0.3,), precision)
    if attempt(told, f"{what}: graph, on the CPU", None, lambda: fe.export(run, place, graph, images)) is None:
        return None
    engine = fe.ExportRequest(trt=True, engine=EngineOptions((BATCH, BATCH, BATCH)))
    bundle = attempt(told, f"{what}: engine", tensorrt_row(), lambda: fe.export(place, place, engine))
    if bundle is not None:
        tactics = bundle.manifest.engines[0].sparse
        found = f"TensorRT found {tactics.eligible} eligible and chose sparse kernels for {tactics.chosen}"
        told.find(f"{what}: layers of 2:4", "measured", tactics.unknown or found, len(tactics.layers), "layers")
    return bundle


def against_dense(told: Told, dense: "Bundle", sparse: "Bundle") -> None:
    """The ratio of their latencies with its interval; the page says whether it tells them apart."""
    from floats_edge.profiling.stage import CompareRequest, compare_speed

    what, row = f"2:4 {sparse.manifest.precision}: latency over that of its dense twin", tensorrt_row()
    request = CompareRequest("trt", BATCH)
    found = attempt(told, what, row, lambda: compare_speed([dense.path, sparse.path], request))
    if found is None:
        return
    told.line("records", found.model_dump(mode="json"))
    (ratio,) = found.ratios
    why = (
        f"{ratio.confidence:.1%} interval {ratio.low:.3f} to {ratio.high:.3f}, over 1 is slower; p50 "
        f"{found.p50_ms[ratio.over]:.3g} and {found.p50_ms[ratio.under]:.3g} ms; ResNet-8, {WIDE[0]}, batch {BATCH}"
    )
    told.find(what, "measured", "; ".join([why, *found.marks]), ratio.ratio, "times", ratio.pairs, row)
