"""Bundles whose files are consistent but whose graph is another: refused when opened, never in the middle of a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, images, write_bundle
from onnx import TensorProto, numpy_helper

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.manifest import Precision
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.errors import ArtifactError, BackendError, FloatsError
from floats_edge.runtime.base import DEFAULT_HOST
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.ort_session import open_session
from floats_edge.runtime.twin import BundleTwin

VALUES = {"fixed": (0.3,), "bank": (0.0, 0.3)}
MODES = ("fixed", "bank", "bound", "input", "refit")

Change = Callable[[onnx.GraphProto], None]


def foreign(folder: Path, mode: str, change: Change, precision: Precision = "fp32") -> Bundle:
    """A bundle whose last graph was changed by hand, under a manifest that lists the new hashes."""
    bundle = write_bundle(folder, VALUES.get(mode), precision, mode)
    file = folder / bundle.manifest.graphs[-1].file
    model = onnx.load_model_from_string(file.read_bytes())
    change(model.graph)
    return rewritten(bundle, model.SerializeToString())


def rewritten(bundle: Bundle, graph: bytes) -> Bundle:
    """The bundle with these bytes for its last graph, listed with their hash."""
    (bundle.path / bundle.manifest.graphs[-1].file).write_bytes(graph)
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    return open_bundle(bundle.path)


def value_of(graph: onnx.GraphProto, name: str) -> onnx.ValueInfoProto:
    return next(value for value in (*graph.input, *graph.output) if value.name == name)


def renamed(old: str, new: str) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = new if value.name == old else value.name
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def resized(name: str, axis: int, size: int) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        value_of(graph, name).type.tensor_type.shape.dim[axis].dim_value = size

    return change


def another_input(graph: onnx.GraphProto) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("another", TensorProto.FLOAT, [1]))


def another_classifier(graph: onnx.GraphProto) -> None:
    """Six classes instead of five, as of a network for other labels."""
    for name, shape in (("classifier.weight", (6, 8)), ("classifier.bias", (6,))):
        for tensor in graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), name))
    value_of(graph, "logits").type.tensor_type.shape.dim[1].dim_value = 6


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("images", "pictures"), r"input images: float \[\*, 3, 8, 8\] stated, nothing found"),
        (renamed("logits", "scores"), r"output logits: float \[\*, 5\] stated, nothing found"),
        (resized("images", 2, 16), r"images: float \[\*, 3, 8, 8\] stated, float \[\*, 3, 16, 8\] found"),
        (resized("images", 0, 1), r"images: float \[\*, 3, 8, 8\] stated, float \[1, 3, 8, 8\] found"),
        (another_input, r"input another: nothing stated, float \[1\] found"),
    ],
    ids=["images renamed", "logits renamed", "height", "fixed batch", "another input"],
)
@pytest.mark.parametrize("use", ["engine", "twin"])
def test_what_goes_in_and_out_is_checked_in_every_mode(
    tmp_path: Path, use: str, mode: str, change: Change, message: str
) -> None:
    bundle = foreign(tmp_path / "bundle", mode, change)
    with pytest.raises(ArtifactError, match=message) as caught:
        OPENERS[use](bundle, mode)
    assert "export it again" in caught.value.fix


@pytest.mark.parametrize(
    ("mode", "change", "message"),
    [
        ("fixed", another_classifier, r"output logits: float \[\*, 5\] stated, float \[\*, 6\] found"),
        ("bound", renamed("stem.weight", "x"), r"input stem.weight: float \[8, 3, 3, 3\] stated, nothing found"),
        ("bound", resized("stem.bias", 0, 1), r"input stem.bias: float \[8\] stated, float \[1\] found"),
        ("input", renamed("lambda", "x"), r"input lambda: float \[\] stated, nothing found"),
        ("refit", renamed("stem.weight", "x"), r"constant stem.weight: float \[8, 3, 3, 3\] stated, nothing found"),
        ("refit", another_classifier, r"constant classifier.weight: float \[5, 8\] stated, float \[6, 8\] found"),
    ],
)
@pytest.mark.parametrize("use", ["engine", "twin"])
def test_what_only_one_mode_has(tmp_path: Path, use: str, mode: str, change: Change, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        OPENERS[use](foreign(tmp_path / "bundle", mode, change), mode)


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_every_graph_of_ours_passes(tmp_path: Path, mode: str, precision: str) -> None:
    bundle = write_bundle(tmp_path / "bundle", VALUES.get(mode), precision, mode)
    with open_ort(bundle, "ort-cpu", VALUES.get(mode, (0.0,))[0]) as engine:
        assert engine.predict(images(2)).shape == (2, 5)


# What no exporter writes


def elsewhere(location: str) -> Change:
    """Every constant of more than one number is in another file."""

    def change(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            size = len(tensor.raw_data)
            if size > 8:
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in {"location": location, "offset": "0", "length": str(size)}.items():
                    tensor.external_data.add(key=key, value=value)

    return change


def one_constant(change: Callable[[TensorProto], object]) -> Change:
    def change_one(graph: onnx.GraphProto) -> None:
        change(next(t for t in graph.initializer if t.name.startswith("stem.weight")))

    return change_one


def as_text(tensor: TensorProto) -> None:
    tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, TensorProto.STRING, [1], [b"text"]))


OPENERS: dict[str, Callable[[Bundle, str], object]] = {
    "engine": lambda bundle, mode: open_ort(bundle, "ort-cpu", VALUES.get(mode, (0.0,))[0]),
    "twin": lambda bundle, _: BundleTwin(bundle),
    "another bundle": lambda bundle, _: export(bundle.path, bundle.path.with_name("other"), ExportRequest((0.5,))),
}
HOLDING_WEIGHTS = [("engine", "fixed"), ("engine", "input"), ("engine", "refit"), ("twin", "fixed"), ("twin", "input")]


@pytest.mark.parametrize(("use", "mode"), [*HOLDING_WEIGHTS, ("another bundle", "bound"), ("engine", "bound")])
@pytest.mark.parametrize("data", [b"no graph", b""], ids=["garbage", "empty"])
def test_a_file_that_is_no_graph(tmp_path: Path, use: str, mode: str, data: bytes) -> None:
    bundle = rewritten(write_bundle(tmp_path / "bundle", VALUES.get(mode), "fp32", mode), data)
    with pytest.raises(FloatsError, match=r"graph"):
        OPENERS[use](bundle, mode)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("where", ["beside", "absolute"])
@pytest.mark.parametrize(("use", "mode"), HOLDING_WEIGHTS)
def test_constants_in_a_file_that_nobody_hashed_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, mode: str, where: str, precision: Precision
) -> None:
    """Relative to the working directory they would be found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constants").write_bytes(bytes(10_000))
    location = "constants" if where == "beside" else str(tmp_path / "constants")
    bundle = foreign(tmp_path / "bundle", mode, elsewhere(location), precision)
    with pytest.raises(FloatsError, match=r"stem\.weight|stem\.bias"):
        OPENERS[use](bundle, mode)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: setattr(tensor, "raw_data", tensor.raw_data[:-4]),
        lambda tensor: tensor.dims.__setitem__(0, 2**50),
        lambda tensor: setattr(tensor, "data_type", 999),
        as_text,
    ],
    ids=["too short", "too large", "of no type", "text"],
)
@pytest.mark.parametrize(("use", "mode"), HOLDING_WEIGHTS)
def test_constants_that_are_no_arrays(
    tmp_path: Path, use: str, mode: str, change: Callable[[TensorProto], object]
) -> None:
    with pytest.raises(FloatsError):
        OPENERS[use](foreign(tmp_path / "bundle", mode, one_constant(change)), mode)


def test_another_provider_is_not_tried_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For an error of this kind ONNX Runtime prints a banner and opens the graph on the CPU, unless told not to."""
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    graph = bundle.read(bundle.manifest.graphs[0].file)
    with pytest.raises(BackendError, match="cannot load the graph"):
        open_session(graph.replace(b"GlobalAveragePool", b"GlobalAverag\xffPool"), bundle, "ort-cpu", DEFAULT_HOST)
    assert capsys.readouterr().out == ""


def test_only_onnx_own_format_is_loaded(tmp_path: Path) -> None:
    """By its first bytes ONNX Runtime would take this for a file in another format of its own, and read that."""
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    with pytest.raises(BackendError, match=r"(?i)protobuf"):
        open_session(b"\x20\x00\x00\x00ORTM" + bytes(200), bundle, "ort-cpu", DEFAULT_HOST)


def test_a_graph_that_fails_while_it_runs(tmp_path: Path) -> None:
    def beyond_the_last_feature(graph: onnx.GraphProto) -> None:
        graph.initializer.append(numpy_helper.from_array(np.full(8, 99), "beyond"))
        flatten = next(node for node in graph.node if node.op_type == "Flatten")
        gather = onnx.helper.make_node("Gather", ["flat", "beyond"], list(flatten.output), axis=1)
        flatten.output[0] = "flat"
        graph.node.insert(list(graph.node).index(flatten) + 1, gather)

    engine = open_ort(foreign(tmp_path / "bundle", "fixed", beyond_the_last_feature), "ort-cpu", 0.3)
    with pytest.raises(BackendError, match="ONNX Runtime failed to run the graph") as caught:
        engine.predict(images(2))
    assert "export it again" in caught.value.fix
