"""``floats-edge pack``: a bundle in the shape that another server takes."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from floats_edge.cli.parameters import FrameSize

if TYPE_CHECKING:
    from floats_edge.packs.folder import PackRecord

Command = TypeVar("Command", bound=Callable[..., None])


@click.group()
def pack() -> None:
    """Put a bundle into the shape that Triton, DeepStream or ROS 2 takes.

    A pack is a folder with the graphs, what else the server reads, and a README. It needs no PyTorch and no
    images. A bundle that failed floats-edge verify is refused, unless it was let pass.

    \b
        floats-edge pack triton bundle -o models
        floats-edge pack deepstream bundle -o nvinfer
        floats-edge pack ros2 bundle -o ~/ws/src/animals
    """


def _bundle_and_out(command: Command) -> Command:
    out = click.option(
        "-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder to write or replace."
    )
    return click.argument("bundle", type=click.Path(path_type=Path))(out(command))


@pack.command()
@_bundle_and_out
@click.option("--name", help="Name of the model.  [default: that of the bundle's folder]")
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="What runs it in Triton; tensorrt takes the bundle's first engine of the full TensorRT.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Largest that Triton puts together.  [default: the engine's, or 8]"
)
def triton(
    bundle: Path, out: Path, name: str | None, backend: Literal["onnxruntime", "tensorrt"], batch: int | None
) -> None:
    """Write a model repository for the Triton Inference Server.

    A bundle for one lambda becomes one model, a bank one model for each lambda (NAME-lambda-0.5). A bundle made with
    --lambda runtime --switch input becomes a model that takes lambda beside the image.

    \b
        floats-edge pack triton bundle -o models
        floats-edge pack triton bundle -o models --name animals --batch 32
        tritonserver --model-repository models
    """
    from floats_edge.artifacts.bundle import open_bundle
    from floats_edge.packs.triton import TritonRequest, pack_triton

    record = pack_triton(open_bundle(bundle), out, TritonRequest(name, backend, batch))
    _print(record, out, f"tritonserver --model-repository {shlex.quote(str(out))}")


@pack.command()
@_bundle_and_out
@click.option(
    "--batch",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Images that nvinfer takes at once: as many as there are streams.",
)
@click.option(
    "--frame",
    type=FrameSize(),
    help="Size of the camera's images, for networks that keep the centre of an image: nvinfer cannot crop.",
)
def deepstream(bundle: Path, out: Path, batch: int, frame: tuple[int, int] | None) -> None:
    """Write configuration files for DeepStream's Gst-nvinfer.

    One file for each lambda of a bundle for fixed lambdas. nvinfer builds the engine itself, where it runs.

    \b
        floats-edge pack deepstream bundle -o nvinfer
        floats-edge pack deepstream bundle -o nvinfer --batch 4 --frame 1920x1080
    """
    from floats_edge.artifacts.bundle import open_bundle
    from floats_edge.packs.deepstream import DeepStreamRequest, pack_deepstream

    record = pack_deepstream(open_bundle(bundle), out, DeepStreamRequest(batch, frame))
    _print(record, out, f"see {out / 'README.md'} for a pipeline")


@pack.command()
@_bundle_and_out
@click.option("--name", help="Name of the package.  [default: after the bundle's folder]")
def ros2(bundle: Path, out: Path, name: str | None) -> None:
    """Write a ROS 2 package with a lifecycle node around the C++ kit.

    The node classifies sensor_msgs/Image; its parameter lambda can be set while it runs. Every bundle will do that
    the C++ kit runs on the machine: bf16 needs TensorRT.

    \b
        floats-edge pack ros2 bundle -o ~/ws/src/animals --name animals
        colcon build --packages-select animals
    """
    from floats_edge.artifacts.bundle import open_bundle
    from floats_edge.packs.ros2 import pack_ros2

    record = pack_ros2(open_bundle(bundle), out, name)
    _print(record, out, f"see {out / 'README.md'} for how to build and run it")


def _print(record: "PackRecord", out: Path, then: str) -> None:
    for name, entry in record.files.items():
        click.echo(f"{out / name}  {entry.bytes:,} bytes")
    for problem in record.let_pass:
        click.echo(f"let pass by --allow-mismatch: {problem}")
    click.echo(f"Packed: {out} ({record.target}, {record.mode}, {record.precision})")
    click.echo(f"Next: {then}")
