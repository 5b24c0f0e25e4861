"""Bundles whose files are consistent but whose graph is another: refused when opened, never in the middle of a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, images, write_bundle
from onnx import TensorProto, numpy_helper

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.errors import ArtifactError
from floats_edge.runtime.lambda_weights import twin_weights
from floats_edge.runtime.ort import open_ort

VALUES = {"fixed": (0.3,), "bank": (0.0, 0.3)}
MODES = ("fixed", "bank", "bound", "input", "refit")

Change = Callable[[onnx.GraphProto], None]


def foreign(folder: Path, mode: str, change: Change) -> Bundle:
    """A bundle whose last graph was changed by hand, under a manifest that lists the new hashes."""
    bundle = write_bundle(folder, VALUES.get(mode), "fp32", mode)
    file = folder / bundle.manifest.graphs[-1].file
    model = onnx.load_model_from_string(file.read_bytes())
    change(model.graph)
    file.write_bytes(model.SerializeToString())
    write_manifest(folder, bundle.manifest.model_copy(update={"files": file_entries(folder)}))
    return open_bundle(folder)


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
def test_what_goes_in_and_out_is_checked_in_every_mode(tmp_path: Path, mode: str, change: Change, message: str) -> None:
    bundle = foreign(tmp_path / "bundle", mode, change)
    with pytest.raises(ArtifactError, match=message) as caught:
        open_ort(bundle, "ort-cpu", VALUES.get(mode, (0.0,))[0])
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
def test_what_only_one_mode_has(tmp_path: Path, mode: str, change: Change, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        open_ort(foreign(tmp_path / "bundle", mode, change), "ort-cpu", VALUES.get(mode, (0.0,))[0])


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("fixed", renamed("stem.bias", "x")),
        ("bank", another_classifier),
        ("input", renamed("stem.bias.base", "x")),
    ],
)
def test_the_float_twin_is_read_from_no_other_graph(tmp_path: Path, mode: str, change: Change) -> None:
    with pytest.raises(ArtifactError, match=r"constant (stem.bias|classifier.weight): float"):
        twin_weights(foreign(tmp_path / "bundle", mode, change))


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_every_graph_of_ours_passes(tmp_path: Path, mode: str, precision: str) -> None:
    bundle = write_bundle(tmp_path / "bundle", VALUES.get(mode), precision, mode)
    with open_ort(bundle, "ort-cpu", VALUES.get(mode, (0.0,))[0]) as engine:
        assert engine.predict(images(2)).shape == (2, 5)
