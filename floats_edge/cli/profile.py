"""``floats-edge profile``: latency, throughput, memory, energy, layers, and bundles against each other."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from floats_edge.cli.board import board_log, given_options, host_option
from floats_edge.cli.main import INTERRUPTED
from floats_edge.cli.parameters import LambdaValue, Seconds

if TYPE_CHECKING:
    from floats_edge.artifacts.records import Comparison, Profile
    from floats_edge.profiling.stage import ProfileRequest

BOARDS = ("orin-nano-8gb", "orin-nx-16gb", "agx-orin-64gb", "thor")


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
    type=click.Choice(("auto", "ort-cpu", "ort-cuda", "ort-rtx", "trt")),
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
@host_option
@click.option(
    "--build",
    is_flag=True,
    help="With --host: first let the board build TensorRT engines for itself, for the sizes of --batch.",
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
    host: str | None,
    build: bool,
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
      floats-edge profile quickstart/bundle
      floats-edge profile BUNDLE --backend trt --backend ort-cpu --batch 1 --batch 8 -o orin.json
      floats-edge profile BUNDLE --backend trt --cuda-graph -o graph.json
      floats-edge profile BUNDLE --streams 1 --streams 2 --threads 1 --estimate orin-nano-8gb,thor
      floats-edge profile DENSE SPARSE --backend ort-cpu --duration 10
      floats-edge profile BUNDLE --host me@orin --build --backend trt -o orin.json
    """
    from rich.console import Console

    from floats_edge.artifacts.files import check_writable
    from floats_edge.artifacts.records import Profile, save_record
    from floats_edge.profiling.bench import Timing
    from floats_edge.profiling.stage import ProfileRequest
    from floats_edge.report.console import print_records
    from floats_edge.runtime.base import Host

    if cuda_graph and not {"auto", "trt"} & {*backends}:
        raise click.UsageError("--cuda-graph is for --backend trt")
    check_writable(out)
    if build and host is None:
        raise click.UsageError("--build goes with --host; here, it is floats-edge export BUNDLE -o BUNDLE --trt")
    backends, batches = tuple(dict.fromkeys(backends)), tuple(dict.fromkeys(batches))
    streams = tuple(dict.fromkeys(streams))
    if len(bundles) > 1:
        _check_comparison(backends, batches, streams, boards)
    if host is not None:
        record = _profile_on(host, bundles, batches if build else None, out)
    else:
        named, timing = () if "auto" in backends else backends, Timing(warmup_s=warmup, duration_s=duration)
        threading = Host(threads, cuda_graph=cuda_graph)
        record = _profile_here(bundles, ProfileRequest(named, batches, streams, lam, timing, threading, boards))
    try:
        print_records([record], Console(highlight=False))  # first, so that a full disk does not take the figures along
    finally:  # nor does a closed pipe
        save_record(record, out)
    click.echo(f"Written to {out}; render it with: floats-edge report {out} --html report.html")
    if isinstance(record, Profile) and record.incomplete is not None:
        click.echo(f"Ended early ({record.incomplete}); what had been measured is kept, and marked.", err=True)
        click.get_current_context().exit(INTERRUPTED if record.incomplete == "interrupted" else 1)


def _profile_here(bundles: tuple[Path, ...], request: "ProfileRequest") -> "Profile | Comparison":
    """Measure a bundle on this machine, or compare several by the one backend and batch size of ``request``."""
    from floats_edge.cli.console import status_console, telling
    from floats_edge.profiling.stage import CompareRequest, compare_speed
    from floats_edge.profiling.stage import profile as profile_bundle

    with telling(status_console(), "reading the conditions") as tell:
        if len(bundles) == 1:
            return profile_bundle(bundles[0], request, lambda step: tell(f"measuring {step}"))
        backend, [batch] = next(iter(request.backends), None), request.batches
        comparison = CompareRequest(backend, batch, request.lam, request.timing, request.host)
        return compare_speed(bundles, comparison, lambda step: tell(f"comparing: {step}"))


def _profile_on(
    host: str, bundles: tuple[Path, ...], build: tuple[int, ...] | None, out: Path
) -> "Profile | Comparison":
    """Let a board measure; ``build``: the batch sizes that it first builds engines for."""
    from floats_edge.board.stage import profile_on

    given = given_options(click.get_current_context(), "host", "build", "out")
    options = [word for words in given.values() for word in words]
    engines = None if build is None else [f"--batch={min(build)}:{max(build)}:{max(build)}"]
    return profile_on(host, bundles, options, engines, board_log(host, out))


def _check_comparison(
    backends: tuple[str, ...], batches: tuple[int, ...], streams: tuple[int, ...], boards: tuple[str, ...]
) -> None:
    """Refuse options of which a comparison takes one, or none."""
    too_much = {
        "one --backend": len(backends) > 1,
        "one --batch": len(batches) > 1,
        "one stream": streams != (1,),
        "no --estimate": bool(boards),
    }
    wrong = [what for what, given in too_much.items() if given]
    if wrong:
        raise click.UsageError(f"several bundles are compared with {' and '.join(wrong)}")
