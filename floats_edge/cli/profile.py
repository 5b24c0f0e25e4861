"""``floats-edge profile``: latency, throughput, memory and the cost of switching lambda."""

import math
from pathlib import Path

import click

from floats_edge.cli.parameters import LambdaValue


def _finite(ctx: click.Context, option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("give a number of seconds")
    return value


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--backend",
    "backends",
    type=click.Choice(("auto", "ort-cpu", "ort-cuda", "ort-trt", "trt")),
    multiple=True,
    default=("auto",),
    help="What runs the bundle; repeat for several. auto: every backend that this machine has.  [default: auto]",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    help="Images per inference; repeat for several.  [default: 1]",
)
@click.option(
    "--lambda",
    "lam",
    type=LambdaValue(),
    help="Lambda in force.  [default: the first that the bundle serves; 0.5 if any]",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, max=3600),
    callback=_finite,
    default=3.0,
    show_default=True,
    help="Seconds to measure each backend at each batch size, at least; and at least 50 inferences.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(min=0, max=3600),
    callback=_finite,
    default=1.0,
    show_default=True,
    help="Seconds of inferences before, which do not count.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("profile.json"),
    show_default=True,
    help="Where the figures are written; floats-edge report renders them.",
)
def profile(
    bundle: Path,
    backends: tuple[str, ...],
    batches: tuple[int, ...],
    lam: float | None,
    duration: float,
    warmup: float,
    out: Path,
) -> None:
    """Measure how fast a bundle runs on this machine and what it takes.

    For every backend and batch size, in a process of its own: latency of single inferences (p50, p90, p99, mean, n),
    images/s, time to load, time of a switch of lambda, and peak memory, with the conditions they were taken under
    (processor, clocks, power mode, versions). What cannot be read says why. No PyTorch is needed.

    \b
    Examples:
      floats-edge profile runs/quickstart/bundle
      floats-edge profile BUNDLE --backend trt --backend ort-cpu --batch 1 --batch 8 -o orin.json
      floats-edge profile BUNDLE --lambda 0.3 --duration 10
    """
    from functools import partial

    from rich.console import Console

    from floats_edge.artifacts.bundle import open_bundle
    from floats_edge.artifacts.records import save_record
    from floats_edge.profiling.bench import Timing
    from floats_edge.profiling.profile import profile_bundle
    from floats_edge.report.console import print_records
    from floats_edge.runtime.backends import BACKENDS, open_predictor, unavailable_reason

    opened = open_bundle(bundle)
    if lam is None:
        lam = opened.manifest.lam.values[0] if opened.manifest.lam.values else 0.5
    wanted = BACKENDS if "auto" in backends else tuple(dict.fromkeys(backends))
    reasons = {backend: unavailable_reason(backend, opened) for backend in wanted}
    with Console(stderr=True).status("reading the conditions") as status:
        record = profile_bundle(
            opened,
            {backend: partial(open_predictor, opened, backend, lam) for backend in wanted if reasons[backend] is None},
            tuple(dict.fromkeys(batches)),
            Timing(warmup_s=warmup, duration_s=duration),
            unavailable={backend: reason for backend, reason in reasons.items() if reason is not None},
            progress=lambda step: status.update(f"measuring {step}: {warmup:g} s of warm-up, {duration:g} s or more"),
        )
    save_record(record, out)
    console = Console(highlight=False)
    print_records([record], console)
    console.print(f"Written to {out}; render it with: floats-edge report {out} --html report.html", markup=False)
