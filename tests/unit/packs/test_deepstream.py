"""Files of nvinfer: keys that it knows, graphs that give probabilities, and the same part of a frame as in training."""

import configparser
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fixtures.tiny_bundle import IMAGE_SHAPE
from hypothesis import given, settings
from hypothesis import strategies as st

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.manifest import Mode
from floats_edge.errors import ArtifactError
from floats_edge.packs.deepstream import DeepStreamRequest, centre, pack_deepstream
from floats_edge.preprocessing import Preprocessing, preprocessed
from floats_edge.runtime.golden import read_golden

FIXTURES = Path(__file__).parents[2] / "fixtures"
KEYS = {line for line in (FIXTURES / "nvinfer_keys.txt").read_text().splitlines() if not line.startswith("#")}
SQUASH = Preprocessing(resize="squash")


def stated(preprocessing: Preprocessing, shape: tuple[int, int, int] = IMAGE_SHAPE) -> dict[str, Any]:
    """An ``InputSpec`` whose images are made so."""
    return {"shape": shape, "preprocessing": preprocessing.resolved(shape)}


def read(file: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.read_string(file.read_text())
    assert parser.sections() == ["property"]
    return dict(parser["property"])


def pack(bundle: Bundle, out: Path, **request: Any) -> dict[str, str]:
    """The one configuration file of a pack."""
    pack_deepstream(bundle, out, DeepStreamRequest(**request))
    return read(out / "config_infer_primary.txt")


def test_nvinfer_knows_every_key(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    for precision in ("fp32", "int8"):
        config = pack(tiny("fixed", precision, input=stated(SQUASH)), tmp_path / precision)
        assert set(config) <= KEYS


def test_a_classifier_of_whole_frames(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    config = pack(tiny("fixed", input=stated(SQUASH)), tmp_path / "out", batch=4)
    wanted = {"process-mode": "1", "network-type": "1", "batch-size": "4", "infer-dims": "3;8;8"}
    assert wanted.items() <= config.items()
    assert np.float32(config["net-scale-factor"]) == np.float32(1) / np.float32(255)
    assert "offsets" not in config
    assert config["model-engine-file"] == "model.onnx_b4_gpu0_fp32.engine"
    assert (tmp_path / "out" / config["labelfile-path"]).read_text() == "a;b;c;d;e\n"
    assert (tmp_path / "out" / config["onnx-file"]).is_file()


@pytest.mark.parametrize(
    ("precision", "mode", "typed"), [("fp32", "0", False), ("fp16", "2", False), ("int8", "0", True)]
)
def test_the_engine_computes_in_the_precision_of_the_graph(
    precision: str, mode: str, typed: bool, tiny: Callable[..., Bundle], tmp_path: Path
) -> None:
    config = pack(tiny("fixed", precision, input=stated(SQUASH)), tmp_path / "out")
    assert (config["network-mode"], config.get("strongly-typed") == "1") == (mode, typed)
    assert ("strongly-typed" in (tmp_path / "out" / "README.md").read_text()) == typed


@pytest.mark.parametrize(("colours", "number"), [("rgb", "0"), ("bgr", "1"), ("grey", "2")])
def test_colours(colours: Any, number: str, tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    shape = (1 if colours == "grey" else 3, 8, 8)
    preprocessing = Preprocessing(resize="squash", colours=colours)
    config = pack(tiny("fixed", input=stated(preprocessing, shape)), tmp_path / "out")
    assert config["model-color-format"] == number


@pytest.mark.parametrize(("resize", "kept"), [("squash", "0"), ("pad", "1")])
def test_proportions(resize: Any, kept: str, tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    config = pack(tiny("fixed", input=stated(Preprocessing(resize=resize))), tmp_path / "out")
    assert (config["maintain-aspect-ratio"], config["symmetric-padding"]) == (kept, kept)
    assert "src-crop" not in (tmp_path / "out" / "README.md").read_text()


def test_a_centre_is_kept_only_of_frames_of_known_size(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = tiny("fixed")
    with pytest.raises(ArtifactError, match="keeps the centre of an image, which nvinfer cannot") as error:
        pack(bundle, tmp_path / "out")
    assert "--frame 1920x1080" in error.value.fix
    pack(bundle, tmp_path / "out", frame=(480, 480))
    assert "src-crop" not in (tmp_path / "out" / "README.md").read_text()
    pack(bundle, tmp_path / "out", frame=(480, 640))
    words = shlex.split(
        (tmp_path / "out" / "README.md").read_text().partition("gst-launch-1.0")[2].partition("fakesink")[0]
    )
    assert "video/x-raw(memory:NVMM),width=512,height=480" in words
    assert "src-crop=64:0:512:480" in words


@settings(max_examples=25)
@given(
    frame=st.tuples(st.integers(64, 256), st.integers(64, 256)),
    size=st.tuples(st.integers(16, 64), st.integers(16, 64)),
    wider=st.integers(0, 16),
)
def test_the_crop_is_what_training_keeps(frame: tuple[int, int], size: tuple[int, int], wider: int) -> None:
    resized = (size[0] + wider, size[1] + wider)
    rule = Preprocessing(size=size, resize_size=resized).resolved((1, *size))
    left, top, width, height = centre(frame, rule)
    assert left >= 0 <= top
    assert left + width <= frame[1]
    assert top + height <= frame[0]
    # A picture whose grey levels are its columns or rows: what is kept shows where it was.
    for axis, first, kept in ((0, top, height), (1, left, width)):
        ramp = np.broadcast_to(np.expand_dims(np.linspace(0, 255, frame[axis]), 1 - axis), frame).astype(np.uint8)
        seen = preprocessed(ramp, rule)[0].astype(float).mean(1 - axis) * (frame[axis] - 1) / 255
        pixel = kept / size[axis]
        assert abs(seen.mean() - (first + (kept - 1) / 2)) <= 3 + pixel / 2
        assert abs(np.ptp(seen) - (kept - pixel)) <= 3 + pixel / 2


@pytest.mark.parametrize("mode", ["fixed", "bank"])
def test_graphs_give_the_probabilities_of_the_golden_logits(
    mode: Mode, tiny: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = tiny(mode, input=stated(SQUASH))
    pack_deepstream(bundle, tmp_path / "out", DeepStreamRequest())
    golden = read_golden(bundle)
    configs = sorted((tmp_path / "out").glob("config_infer_primary*.txt"))
    assert len(configs) == len(golden.logits)
    for file, (lam, logits) in zip(configs, sorted(golden.logits.items()), strict=True):
        config = read(file)
        assert mode == "fixed" or file.stem.endswith(f"-lambda-{lam}")
        session = onnxruntime.InferenceSession(tmp_path / "out" / config["onnx-file"])
        (found,) = session.run([config["output-blob-names"]], {"images": golden.images})
        wanted = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(found, wanted / wanted.sum(1, keepdims=True), atol=1e-4)
        assert len(session.get_outputs()) == 1


@pytest.mark.parametrize("mode", ["input", "bound", "refit"])
def test_a_lambda_from_outside_is_refused(mode: Mode, tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="DeepStream's nvinfer cannot serve") as error:
        pack_deepstream(tiny(mode), tmp_path / "out", DeepStreamRequest(frame=(8, 8)))
    assert "--switch input" not in error.value.fix


def changed(bundle: Bundle, change: Callable[[onnx.GraphProto], None]) -> Bundle:
    """The bundle with another graph, and hashes of the files as they are now."""
    file = bundle.path / bundle.manifest.graphs[0].file
    model = onnx.load(file)
    change(model.graph)
    write_atomic(file, model.SerializeToString())
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    return open_bundle(bundle.path)


def test_a_graph_with_another_output_is_refused(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    def rename(graph: onnx.GraphProto) -> None:
        graph.node[-1].output[0] = graph.output[0].name = "other"

    bundle = changed(tiny("fixed", input=stated(SQUASH)), rename)
    with pytest.raises(ArtifactError, match="does not give the logits of its manifest"):
        pack_deepstream(bundle, tmp_path / "out", DeepStreamRequest())


@pytest.mark.parametrize("kind", ["weight", "activation"])
def test_a_network_that_uses_the_name_of_the_output_is_told_what_to_rename(
    kind: str, tiny: Callable[..., Bundle], tmp_path: Path
) -> None:
    def rename(graph: onnx.GraphProto) -> None:
        old = graph.initializer[0].name if kind == "weight" else graph.node[0].output[0]
        for names in (names for node in graph.node for names in (node.input, node.output)):
            names[:] = ["probabilities" if name == old else name for name in names]
        for tensor in graph.initializer:
            tensor.name = "probabilities" if tensor.name == old else tensor.name

    bundle = changed(tiny("fixed", input=stated(SQUASH)), rename)
    with pytest.raises(ArtifactError, match="has a tensor called probabilities") as error:
        pack_deepstream(bundle, tmp_path / "out", DeepStreamRequest())
    assert "rename the parameter or buffer" in error.value.fix
    assert not (tmp_path / "out").exists()


def test_the_separator_in_a_label_is_replaced_and_said(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    output = {"name": "logits", "dtype": "float32", "labels": ("a;b", "c", "d", "e", "f")}
    pack(tiny("fixed", input=stated(SQUASH), output=output), tmp_path / "out")
    assert (tmp_path / "out" / "labels.txt").read_text() == "a,b;c;d;e;f\n"
    assert '";" became ","' in (tmp_path / "out" / "README.md").read_text()
