"""``floats-edge export``: from a trained run to a bundle of ONNX graphs and TensorRT engines."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from floats_edge.cli.board import board_log, given_options, host_option
from floats_edge.cli.parameters import BatchRange, LambdaValue, allow_code

if TYPE_CHECKING:
    from floats_edge.artifacts.bundle import Bundle
    from floats_edge.artifacts.manifest import Parity

_OF_ENGINES = {"batch", "targets", "compatibility", "dla", "allow_mismatch"}
"""Options of --trt, which a board is told as they are."""


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Bundle to write or replace.")
@click.option(
    "--lambda",
    "lambdas",
    multiple=True,
    type=LambdaValue(runtime=True),
    help="One value: fixed. Several: a bank. 'runtime': any lambda, switchable while running.  [default: runtime]",
)
@click.option(
    "--switch",
    type=click.Choice(["bound", "input", "refit"]),
    help="How a bundle for any lambda changes it: weights are inputs, lambda is an input, or the engine is refitted.  "
    "[default: bound]",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "bf16", "int8"]), help="Of the graphs.  [default: fp32]"
)
@click.option(
    "--calibration",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    help="int8: how the ranges of the activations are found.  [default: minmax]",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="LAYER",
    help="int8: do not quantise this layer either; may be repeated. See --sensitivity.",
)
@click.option(
    "--keep-worst",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="int8: do not quantise the N other layers that cost most.  [default: 0]",
)
@click.option(
    "--keep-precision",
    type=click.Choice(["fp32", "fp16"]),
    help="int8: what the layers that are not quantised compute in.  [default: fp32]",
)
@click.option(
    "--sensitivity",
    is_flag=True,
    help="int8: quantise each layer alone, print what it costs on validation images, write sensitivity.json.",
)
@click.option("--allow-mismatch", is_flag=True, help="Export even what fails its gate; the manifest says so.")
@click.option("--trt", is_flag=True, help="Also build TensorRT engines, with the TensorRT that is installed.")
@click.option("--batch", type=BatchRange(), help="Engines' batch: N, or MIN:OPT:MAX.  [default: 1]")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="SM",
    help="Engines of TensorRT-RTX: for this kind of GPU, like sm_86. Repeatable.  [default: all from Ampere on]",
)
@click.option(
    "--compatibility",
    multiple=True,
    type=click.Choice(["version", "same-cc", "ampere+"]),
    help="Engines of the full TensorRT: also for newer versions of it; for all GPUs of the same compute capability, or "
    "from Ampere on. Repeatable; may cost speed.",
)
@click.option(
    "--dla",
    type=click.IntRange(min=0),
    metavar="CORE",
    help="Engines for this DLA of a Jetson Orin; the GPU runs what it cannot.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Image folder or list, or where downloads go.")
@click.option("--skip-damaged", is_flag=True, help="Leave out images that are damaged or too thin, and say which.")
@host_option
@allow_code
def export(
    path: Path,
    out: Path,
    lambdas: tuple[float | Literal["runtime"], ...],
    switch: Literal["bound", "input", "refit"] | None,
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None,
    calibration: Literal["minmax", "entropy", "percentile"] | None,
    keep: tuple[str, ...],
    keep_worst: int,
    keep_precision: Literal["fp32", "fp16"] | None,
    sensitivity: bool,
    allow_mismatch: bool,
    trt: bool,
    batch: tuple[int, int, int] | None,
    targets: tuple[str, ...],
    compatibility: tuple[Literal["version", "same-cc", "ampere+"], ...],
    dla: int | None,
    data_dir: Path | None,
    skip_damaged: bool,
    host: str | None,
    allow_code: bool,
) -> None:
    """Export a run folder to ONNX and TensorRT, compared with the trained network on real images.

    PATH is a run folder, or a bundle exported before: a bundle in fp32 with --lambda runtime can become any other, and
    every bundle can be given engines for the TensorRT of this machine (no PyTorch needed):

    \b
        floats-edge export runs/quickstart -o bundle --trt                    # any lambda, switchable
        floats-edge export runs/quickstart -o bundle --lambda 0.3 --trt       # one lambda, plain convolutions
        floats-edge export runs/quickstart -o bundle --lambda 0 --lambda 1    # a bank of two
        floats-edge export runs/quickstart -o bundle --precision int8 --trt   # calibrated on training images
        floats-edge export runs/quickstart -o bundle --precision int8 --keep-worst 2 --keep-precision fp16
        floats-edge export bundle -o bundle --trt --batch 1:8:32              # on the board: engines only
        floats-edge export bundle -o bundle --trt --host me@orin              # the same, from your desk
        floats-edge export bundle -o bundle --trt --target sm_86 --target sm_120   # TensorRT-RTX, two kinds of GPU

    On ONNX Runtime's CPU a small network for any lambda takes up to twice the time of one for fixed lambdas, because
    weights that are inputs cannot be arranged in advance: compare yours with floats-edge profile BUNDLE BUNDLE.

    The bundle is a folder with a manifest.json that names and hashes every file. It appears only if the exported
    network agrees with the trained one; otherwise what stood there stays. It replaces no bundle of another recipe or
    other classes.
    """
    from floats_edge.artifacts.bundle import is_bundle
    from floats_edge.cli.console import status_console, tell_images, telling
    from floats_edge.data import Reading
    from floats_edge.deploy import export as stage
    from floats_edge.deploy.calibrate import Int8Request
    from floats_edge.deploy.engine_request import EngineOptions

    if "runtime" in lambdas and len(lambdas) > 1:
        raise click.UsageError("--lambda runtime serves every lambda: give no other value with it.")
    if precision != "int8" and (calibration or keep or keep_worst or keep_precision or sensitivity):
        raise click.UsageError(
            "--calibration, --keep, --keep-worst, --keep-precision and --sensitivity go with --precision int8."
        )
    values = tuple(sorted({value for value in lambdas if value != "runtime"}))
    if switch and values:
        raise click.UsageError("--switch goes with --lambda runtime: a bundle for fixed lambdas switches by itself.")
    if not trt and (batch or targets or compatibility or dla is not None):
        raise click.UsageError("--batch, --target, --compatibility and --dla say how engines are built: add --trt.")
    if host is not None:
        _print(_export_on(host, path, out, trt), (), replaced=False)
        return
    console = status_console()
    request = stage.ExportRequest(
        lambdas=values or ("runtime" if lambdas or switch else None),
        precision=precision,
        trt=trt,
        engine=EngineOptions(
            batch or (1, 1, 1), tuple(dict.fromkeys(targets)), tuple(dict.fromkeys(compatibility)), dla
        ),
        switch=switch or "bound",
        int8=Int8Request(calibration or "minmax", keep, keep_worst, keep_precision or "fp32", sensitivity),
        allow_mismatch=allow_mismatch,
        reading=Reading(skip_damaged, tell_images(console)),
        allow_code=allow_code,
    )
    added = is_bundle(path) and request.keeps_graphs
    replaced = is_bundle(out) and out.resolve() != path.resolve()
    with telling(console, "export") as tell:
        bundle = stage.export(path, out, request, data_dir, lambda text: tell(f"export: {text}"))
    if sensitivity or keep_worst:
        _print_sensitivity(bundle)
    _print(bundle, () if added else bundle.manifest.parity, replaced=replaced)


def _export_on(host: str, path: Path, out: Path, trt: bool) -> "Bundle":
    """Let a board build the engines of a bundle."""
    from floats_edge.artifacts.bundle import is_bundle
    from floats_edge.board.stage import export_on

    options = given_options(click.get_current_context(), "host", "trt", "out")
    other = [words[0].partition("=")[0] for name, words in options.items() if name not in _OF_ENGINES]
    if other or not trt or not is_bundle(path):
        raise click.UsageError(
            f"--host builds engines of a bundle: give a bundle, --trt, and not {', '.join(other) or 'a run'}. First "
            f"floats-edge export RUN -o BUNDLE here, then floats-edge export BUNDLE -o BUNDLE --trt --host {host}"
        )
    return export_on(host, path, out, [word for words in options.values() for word in words], board_log(host, out))


def _print_sensitivity(bundle: "Bundle") -> None:
    from rich.console import Console

    from floats_edge.artifacts.sensitivity import SENSITIVITY, Sensitivity
    from floats_edge.report.console import print_tables
    from floats_edge.report.sensitivity import sensitivity_table

    report = Sensitivity.model_validate_json(bundle.read(SENSITIVITY))
    print_tables([sensitivity_table(report)], Console(highlight=False))


def _print(bundle: "Bundle", measured: "tuple[Parity, ...]", *, replaced: bool) -> None:
    """Print what was done: parity that was measured, and the engines that were built, which the manifest has first."""
    manifest = bundle.manifest
    for parity in measured:
        click.echo(
            f"lambda {parity.lam:<4g}  top-1 agreement {100 * parity.top1_agreement:.2f} % on {parity.images} images, "
            f"logit error max {parity.max_error:.1e}, p99 {parity.p99_error:.1e} of their range ({parity.backend})"
        )
    if measured and manifest.calibration is not None:
        for reason, layers in manifest.calibration.kept_by_reason.items():
            more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
            click.echo(f"kept in {manifest.calibration.kept_precision}: {layers[0]}{more}: {reason}")
    for engine in manifest.engines[: len(manifest.graphs)]:
        click.echo(f"{engine.file}  {engine.flavour} {engine.version}  {', '.join(engine.targets)}")
    for mismatch in manifest.let_pass:
        click.echo(f"let pass by --allow-mismatch: {mismatch}")
    instead = ", in place of the bundle that was there" if replaced else ""
    click.echo(f"Exported: {bundle.path} ({manifest.lam.mode}, {manifest.precision}){instead}")
