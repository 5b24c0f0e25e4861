"""``floats-edge profile``: latency, throughput, memory, energy, layers, and bundles against each other."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from floats_edge.cli.main import INTERRUPTED
from floats_edge.cli.parameters import LambdaValue, Seconds

if TYPE_CHECKING:
    from floats_edge.artifacts.bundle import Bundle
    from floats_edge.artifacts.records import Comparison, Profile
    from floats_edge.profiling.bench import Open, Timing
    from floats_edge.profiling.profile import Plan
    from floats_edge.runtime.base import Host

BOARDS = ("orin-nano-8gb", "orin-nx-16gb", "agx-orin-64gb", "thor")
_FASTEST_FIRST = ("trt", "ort-trt", "ort-cuda", "ort-cpu")


@dataclass(frozen=True)
class _Options:
    """What was asked for, beside the bundles; names as on the command line."""

    backends: tuple[str, ...]
    batches: tuple[int, ...]
    streams: tuple[int, ...]
    host: "Host"
    lam: float | None
    timing: "Timing"
    boards: tuple[str, ...]

    def lambda_of(self, bundle: "Bundle") -> float:
        """The lambda to measure a bundle at."""
        if self.lam is not None:
            return self.lam
        return bundle.manifest.lam.values[0] if bundle.manifest.lam.values else 0.5


def _boards(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(","))) if value else ()
    for name in names:
        if name not in BOARDS:
            raise click.BadParameter(f"there are figures of {', '.join(BOARDS)}, none of {name!r}")
    return names


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
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
    "--streams",
    type=click.IntRange(1, 64),
    multiple=True,
    default=(1,),
    help="Predictors that run at the same time, each in a thread and with a network of its own in memory; repeat for "
    "several.  [default: 1]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Host threads of one inference.  [default: the backend decides]",
)
@click.option(
    "--cuda-graph",
    is_flag=True,
    help="Backend trt: launch an engine as one CUDA graph instead of kernel by kernel.",
)
@click.option(
    "--lambda",
    "lam",
    type=LambdaValue(),
    help="Lambda in force.  [default: the first that the bundle serves; 0.5 if any]",
)
@click.option(
    "--duration",
    type=Seconds(),
    default=3.0,
    show_default=True,
    help="Seconds to measure each backend at each batch size, at least; and at least 50 inferences.",
)
@click.option(
    "--warmup",
    type=Seconds(),
    default=1.0,
    show_default=True,
    help="Seconds of inferences before, which do not count.",
)
@click.option(
    "--estimate",
    "boards",
    metavar="BOARD,...",
    callback=_boards,
    help=f"Also what these boards cannot beat on paper: {', '.join(BOARDS)}.",
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
    bundles: tuple[Path, ...],
    backends: tuple[str, ...],
    batches: tuple[int, ...],
    streams: tuple[int, ...],
    threads: int | None,
    cuda_graph: bool,
    lam: float | None,
    duration: float,
    warmup: float,
    boards: tuple[str, ...],
    out: Path,
) -> None:
    """Measure how fast a bundle runs on this machine and what it takes, or which of several is faster.

    One BUNDLE: for every backend, batch size and number of streams, in a process of its own: latency of single
    inferences, images/s, time to load and to switch lambda, memory, energy, time per layer, and the conditions before,
    during and after. What cannot be read says why. Ctrl-C keeps what was measured.

    Several: they run in turn, on one backend, and the ratio of every two has its 95 % interval.

    No PyTorch is needed.

    \b
    Examples:
      floats-edge profile runs/quickstart/bundle
      floats-edge profile BUNDLE --backend trt --backend ort-cpu --batch 1 --batch 8 -o orin.json
      floats-edge profile BUNDLE --backend trt --cuda-graph -o graph.json
      floats-edge profile BUNDLE --streams 1 --streams 2 --threads 1 --estimate orin-nano-8gb,thor
      floats-edge profile DENSE SPARSE --backend ort-cpu --duration 10
    """
    from rich.console import Console

    from floats_edge.artifacts.bundle import open_bundle
    from floats_edge.artifacts.files import check_writable
    from floats_edge.artifacts.records import Profile, save_record
    from floats_edge.profiling.bench import Timing
    from floats_edge.report.console import print_records
    from floats_edge.runtime.base import Host

    if cuda_graph and not {"auto", "trt"} & {*backends}:
        raise click.UsageError("--cuda-graph is for --backend trt")
    check_writable(out)
    opened = [open_bundle(path) for path in bundles]
    timing = Timing(warmup_s=warmup, duration_s=duration)
    options = _Options(
        backends=tuple(dict.fromkeys(backends)),
        batches=tuple(dict.fromkeys(batches)),
        streams=tuple(dict.fromkeys(streams)),
        host=Host(threads, cuda_graph=cuda_graph),
        lam=lam,
        timing=timing,
        boards=boards,
    )
    record = _measure(opened, options)
    console = Console(highlight=False)
    print_records([record], console)  # before writing: a full disk does not take the figures along
    save_record(record, out)
    console.print(f"Written to {out}; render it with: floats-edge report {out} --html report.html", markup=False)
    if isinstance(record, Profile) and record.incomplete is not None:
        click.echo(f"Ended early ({record.incomplete}); what had been measured is kept, and marked.", err=True)
        click.get_current_context().exit(INTERRUPTED if record.incomplete == "interrupted" else 1)


def _measure(bundles: "list[Bundle]", options: _Options) -> "Profile | Comparison":
    from rich.console import Console

    from floats_edge.profiling.profile import profile_bundle

    with Console(stderr=True).status("reading the conditions") as status:
        if len(bundles) == 1:
            plan = _plan(bundles[0], options)
            return profile_bundle(bundles[0], plan, lambda step: status.update(f"measuring {step}"))
        _check_comparison(options)
        return _compare(bundles, options, lambda step: status.update(f"comparing: {step}"))


def _check_comparison(options: _Options) -> None:
    """Refuse options of which a comparison takes one, or none."""
    too_much = {
        "one --backend": len(options.backends) > 1,
        "one --batch": len(options.batches) > 1,
        "one stream": options.streams != (1,),
        "no --estimate": bool(options.boards),
    }
    wrong = [what for what, given in too_much.items() if given]
    if wrong:
        raise click.UsageError(f"several bundles are compared with {' and '.join(wrong)}")


def _plan(bundle: "Bundle", options: _Options) -> "Plan":
    from functools import partial

    from floats_edge.profiling.estimate import estimate_bundle
    from floats_edge.profiling.profile import Plan
    from floats_edge.runtime.backends import BACKENDS, open_traced

    wanted = BACKENDS if "auto" in options.backends else options.backends
    reasons = {backend: _unavailable(backend, bundle) for backend in wanted}
    here = [backend for backend in wanted if reasons[backend] is None]
    lam = options.lambda_of(bundle)
    return Plan(
        openers={backend: _opener(bundle, backend, options) for backend in here},
        tracers={backend: partial(open_traced, bundle, backend, lam, options.host.threads) for backend in here},
        batches=options.batches,
        streams=options.streams,
        timing=options.timing,
        unavailable={backend: reason for backend, reason in reasons.items() if reason is not None},
        estimates=estimate_bundle(bundle, options.boards, options.batches),
    )


def _unavailable(backend: str, bundle: "Bundle") -> str | None:
    """Why a backend cannot run a bundle here, or None where it can.

    TensorRT is asked in a process of its own: it opens the GPU, which costs memory and power until the process ends.
    """
    from floats_edge.errors import BackendError
    from floats_edge.profiling.isolation import run_isolated
    from floats_edge.runtime.backends import unavailable_reason

    if backend != "trt":
        return unavailable_reason(backend, bundle)
    try:
        return run_isolated(unavailable_reason, backend, bundle)
    except BackendError as error:
        return error.what


def _compare(bundles: "list[Bundle]", options: _Options, tell: Callable[[str], None]) -> "Comparison":
    from floats_edge.errors import BackendError
    from floats_edge.profiling.compare import Schedule, compare_bundles

    (backend,), (batch,) = options.backends, options.batches
    reasons: dict[str, str] = {}
    for candidate in _FASTEST_FIRST if backend == "auto" else (backend,):
        problems = [reason for bundle in bundles if (reason := _unavailable(candidate, bundle))]
        if problems:
            reasons[candidate] = problems[0]
            continue
        openers = [_opener(bundle, candidate, options) for bundle in bundles]
        return compare_bundles(bundles, openers, batch, Schedule(options.timing), tell)
    raise BackendError(
        f"no backend runs all of these bundles here. {'; '.join(f'{b}: {why}' for b, why in reasons.items())}",
        fix="floats-edge doctor shows what is missing",
    )


def _opener(bundle: "Bundle", backend: str, options: _Options) -> "Open":
    from functools import partial

    from floats_edge.runtime.backends import open_predictor

    return partial(open_predictor, bundle, backend, options.lambda_of(bundle), options.host)
