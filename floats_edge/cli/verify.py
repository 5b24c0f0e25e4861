"""``floats-edge verify``: proof that a bundle is the network that was evaluated."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from floats_edge.artifacts.verification import Verification
    from floats_edge.report.tables import Table


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--backend", default="ort-cpu", show_default=True, help="Runs the bundle: ort-cpu, ort-cuda, ort-rtx, trt."
)
@click.option("--images", type=click.IntRange(1), default=200, show_default=True, help="Test images to attack.")
@click.option(
    "--queries", type=click.IntRange(1), default=200, show_default=True, help="Of the Square attack, per image."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the attacks.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Image folder or list, or where downloads go.")
@click.option("--skip-damaged", is_flag=True, help="Leave out images that are damaged or too thin, and say which.")
@click.option("--allow-mismatch", is_flag=True, help="Let the bundle be used even if it fails; its manifest says so.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Also write all figures as JSON.")
def verify(
    path: Path,
    backend: str,
    images: int,
    queries: int,
    seed: int,
    data_dir: Path | None,
    skip_damaged: bool,
    allow_mismatch: bool,
    out: Path | None,
) -> None:
    """Prove that a bundle is the network that was evaluated.

    PATH is a bundle. Its files must hash to what its manifest says, and it must reproduce the golden outputs, which the
    export kept. It is then compared with its twin, the same network in float32: on real images it must give the same
    classes at every lambda, and be as accurate, on clean images and on those that the recipe's attack made with the
    twin. The Square attack, at last, sees nothing but the bundle's own answers: if it leaves far less accuracy than the
    attack by the twin, the bundle is weaker than that one says.

    Exit code 1 if a gate is not passed. The bundle's manifest keeps the verdict on each backend; floats-edge inspect
    shows it, and a bundle that failed is not opened on that backend until it is mended or let pass.

    \b
        floats-edge verify bundle
        floats-edge verify bundle --backend trt --images 1000 --queries 1000 -o verification.json
    """
    from floats_edge.artifacts.bundle import EXPORT_AGAIN, keep_verdict, open_bundle, rebuild_command
    from floats_edge.artifacts.files import check_writable, write_atomic
    from floats_edge.cli.console import status_console, tell_images, telling
    from floats_edge.data import Reading
    from floats_edge.deploy import verify as stage
    from floats_edge.errors import OutputError, ParityError

    bundle = open_bundle(path)
    if out is not None:
        check_writable(out)
    console = status_console()
    reading = Reading(skip_damaged, tell_images(console))
    request = stage.VerifyRequest(backend, images, queries, seed, reading)
    with telling(console, "verify") as tell:
        record = stage.verify(path, request, data_dir, lambda text: tell(f"verify: {text}"))
    verdict = record.verdict(allow_mismatch)
    try:
        keep_verdict(bundle, verdict)  # before any output, which may fail
    except OutputError as error:
        click.echo(f"The bundle does not keep this verdict: {error.what}", err=True)
    if out is not None:
        write_atomic(out, (record.model_dump_json(indent=2) + "\n").encode())
    _print(record)
    if verdict.refused:
        rebuilt = f", or rebuild its engines: {rebuild_command(bundle)}" if backend == "trt" else ""
        raise ParityError(
            f"{path} is not the network that was evaluated: {' '.join(verdict.problems)}", fix=EXPORT_AGAIN + rebuilt
        )
    for problem in verdict.problems:
        click.echo(f"let pass by --allow-mismatch: {problem}")
    if not verdict.problems:
        click.echo(
            f"Verified: on {record.backend}, {path} answers as it did when it was exported, and as its twin does on "
            f"{record.images:,} images"
        )


def _print(record: "Verification") -> None:
    from rich.console import Console

    from floats_edge.report.console import print_tables

    click.echo(f"{record.files} files have the sha256 that the manifest states")
    if record.mismatch:
        click.echo(f"exported with --allow-mismatch: {record.mismatch}")
    if record.proofs:
        print_tables([_table(record)], Console(highlight=False))


def _table(record: "Verification") -> "Table":
    """Bundle and twin side by side at each lambda, and what the columns mean."""
    from floats_edge.report.tables import attack_name, distance, make_table

    columns = ("λ", "same class %", "clean %", "twin's clean %", "robust %", "twin's robust %", "Square %")
    rows = [
        (
            f"{proof.lam:g}",
            f"{100 * parity.top1_agreement:.2f}",
            *(
                f"{share.percent:.1f}"
                for share in (
                    proof.engine.clean,
                    proof.twin.clean,
                    proof.engine.robust,
                    proof.twin.robust,
                    proof.square,
                )
            ),
        )
        for proof, parity in zip(record.proofs, record.parity, strict=True)
    ]
    notes = (
        f"twin: the same network in float32, computed by PyTorch. same class: share of {record.parity[0].images:,} "
        f"images that bundle and twin put into the same class. All else is of {record.images:,} test images.",
        f"robust: still right after an attack ({attack_name(record.attack)}, ε {distance(record.attack.epsilon)}). It "
        "needs gradients, which a bundle cannot give: the images are made with the twin and shown to both.",
        f"Square: still right after an attack of {record.queries:,} queries an image that sees only the bundle's own "
        "answers. If it is far below robust, the bundle is weaker than robust says.",
    )
    return make_table(f"Bundle and twin, {record.library}", columns, rows, figures=columns, notes=notes)
