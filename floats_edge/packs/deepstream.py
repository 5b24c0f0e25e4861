"""Configuration files of DeepStream's Gst-nvinfer, with graphs that give probabilities, from which it builds engines.

Source: the keys, what they mean and what the default parser of classes does are those of gst-nvinfer and nvdsinfer in
github.com/NVIDIA/DeepStream (July 2026): ``gstnvinfer_property_parser.cpp``, ``gstnvinfer.cpp`` (scaling and padding),
``nvdsinfer_context_impl_output_parsing.cpp`` (probabilities), ``nvdsinfer_model_builder.cpp`` (precisions).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Graph
from floats_edge.errors import ArtifactError
from floats_edge.packs.folder import README, PackRecord, check_packable, provenance, write_pack
from floats_edge.packs.probabilities import PROBABILITIES, with_probabilities
from floats_edge.preprocessing import ResolvedPreprocessing, crop_offset, scaled_size

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

_LABELS = "labels.txt"
_COLOURS = {"rgb": 0, "bgr": 1, "grey": 2}
_FP32, _FP16 = 0, 2


@dataclass(frozen=True)
class DeepStreamRequest:
    """What to make.

    Attributes:
        batch: images that nvinfer takes at once: as many as there are streams.
        frame: height and width of the camera's images; needed where a network keeps the centre of an image.
    """

    batch: int = 1
    frame: tuple[int, int] | None = None


def pack_deepstream(bundle: Bundle, out: Path, request: DeepStreamRequest) -> PackRecord:
    """Write graphs, labels and a configuration file for each lambda at ``out``.

    Raises:
        ArtifactError: nvinfer cannot serve its lambda mode or crop its images, or a file is not what was exported.
        ParityError: ``floats-edge verify`` found that it does not compute what it should.
        OutputError: ``out`` cannot be written or holds something else.
    """
    check_packable(bundle, "DeepStream's nvinfer", ("fixed", "bank"), ("ort-cpu", "trt"))
    crop = _crop(bundle, request.frame)
    return write_pack(bundle, out, "deepstream", _files(bundle, request, crop))


def _crop(bundle: Bundle, frame: tuple[int, int] | None) -> Box | None:
    """The part of the camera's images that reaches the network; None: all of it."""
    preprocessing = bundle.manifest.input.preprocessing
    if preprocessing.resize != "short-side":
        return None
    if frame is None:
        raise ArtifactError(
            f"{bundle.path} keeps the centre of an image, which nvinfer cannot.",
            fix="say how large the camera's images are, to have them cropped before nvinfer: --frame 1920x1080; or "
            "train with -o data.preprocessing.resize=squash",
        )
    box = centre(frame, preprocessing)
    return None if box == (0, 0, frame[1], frame[0]) else box


def centre(frame: tuple[int, int], preprocessing: ResolvedPreprocessing) -> Box:
    """The part of a frame (height, width) that is left after scaling and cropping; all even, as video formats want."""
    scaled = scaled_size(frame, preprocessing)
    offset = crop_offset(scaled, preprocessing.size)
    (top, height), (left, width) = (
        (2 * round(first * whole / large / 2), 2 * (kept * whole // large // 2))
        for first, kept, whole, large in zip(offset, preprocessing.size, frame, scaled, strict=True)
    )
    return left, top, width, height


def _files(bundle: Bundle, request: DeepStreamRequest, crop: Box | None) -> Iterator[tuple[str, bytes]]:
    manifest = bundle.manifest
    # One line; a class whose name holds the separator would become two.
    yield _LABELS, (";".join(label.replace(";", ",") for label in manifest.output.labels) + "\n").encode()
    for graph in manifest.graphs:
        yield f"model{_suffix(bundle, graph)}.onnx", with_probabilities(bundle, graph.file)
        yield f"config_infer_primary{_suffix(bundle, graph)}.txt", _config(bundle, graph, request).encode()
    yield README, _readme(bundle, request, crop).encode()


def _suffix(bundle: Bundle, graph: Graph) -> str:
    return f"-lambda-{graph.lam!r}" if bundle.manifest.lam.mode == "bank" else ""


def _config(bundle: Bundle, graph: Graph, request: DeepStreamRequest) -> str:
    """The text of a configuration file: groups of ``key=value``, lists with ``;``."""
    manifest = bundle.manifest
    preprocessing = manifest.input.preprocessing
    padded = int(preprocessing.resize == "pad")
    onnx = f"model{_suffix(bundle, graph)}.onnx"
    mode = "fp16" if manifest.precision == "fp16" else "fp32"
    keys = {
        "gie-unique-id": 1,
        "gpu-id": 0,
        "process-mode": 1,  # whole frames
        "network-type": 1,  # classifier
        "network-mode": _FP16 if mode == "fp16" else _FP32,
        # Types are those of the graph: without it nvinfer asks for a calibration that int8 has already had.
        **({"strongly-typed": 1} if manifest.precision in ("int8", "bf16") else {}),
        "onnx-file": onnx,
        # As nvinfer calls the engine that it builds: the next start takes it.
        "model-engine-file": f"{onnx}_b{request.batch}_gpu0_{mode}.engine",
        "labelfile-path": _LABELS,
        "batch-size": request.batch,
        "infer-dims": ";".join(map(str, manifest.input.shape)),
        "net-scale-factor": repr(1 / 255),
        "model-color-format": _COLOURS[preprocessing.colours],
        "maintain-aspect-ratio": padded,
        "symmetric-padding": padded,
        "scaling-filter": 1,  # bilinear
        "output-blob-names": PROBABILITIES,
        "classifier-threshold": 0.0,  # the likeliest class, however unsure
    }
    return "\n".join(("[property]", *(f"{key}={value}" for key, value in keys.items()), ""))


def _readme(bundle: Bundle, request: DeepStreamRequest, crop: Box | None) -> str:
    manifest = bundle.manifest
    configs = "\n".join(
        f"- `config_infer_primary{_suffix(bundle, graph)}.txt`: lambda {graph.lam:g}" for graph in manifest.graphs
    )
    height, width = (crop[3], crop[2]) if crop else request.frame or (1080, 1920)
    cropped = (
        f"nvvideoconvert src-crop={':'.join(map(str, crop))} ! \\\n"
        f"        'video/x-raw(memory:NVMM),width={width},height={height}' ! "
        if crop
        else ""
    )
    return f"""# Configuration of DeepStream's Gst-nvinfer

{configs}

Lambda 0 is best on clean images, 1 most robust. The first start builds an engine from the ONNX graph and leaves it in
this folder; later starts take that. {"Frames are cropped as in training:" if crop else "Set the size of your frames:"}

    gst-launch-1.0 uridecodebin uri=file:///video.mp4 ! {cropped}m.sink_0 \\
        nvstreammux name=m batch-size={request.batch} width={width} height={height} ! \\
        nvinfer config-file-path=config_infer_primary{_suffix(bundle, manifest.graphs[0])}.txt ! fakesink

{"".join(f"- {remark}{chr(10)}" for remark in _remarks(bundle))}
{provenance(bundle)}"""


def _remarks(bundle: Bundle) -> Iterator[str]:
    """What who uses the pack should know."""
    manifest = bundle.manifest
    yield "Never run with DeepStream. The parser of DeepStream 9.1, built from its public source, reads such files."
    yield "Each graph is the bundle's, with a softmax behind the logits: nvinfer wants probabilities."
    if manifest.engines:
        yield "The engines of the bundle are not used: they give logits."
    if manifest.precision in ("int8", "bf16"):
        yield f"{manifest.precision} needs the key `strongly-typed`; an nvinfer that says it is unknown is too old."
    if manifest.input.preprocessing.antialias:
        yield (
            "The network was trained on images scaled with antialiasing, which nvinfer's bilinear filter is not "
            "documented to do. Train with `-o data.preprocessing.antialias=false` to be closer."
        )
    if any(";" in label for label in manifest.output.labels):
        yield 'In the names of classes ";" became ",", because nvinfer separates them by ";".'
