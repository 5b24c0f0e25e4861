"""Graphs of strangers: refused from their bytes, before ``onnx`` or ONNX Runtime sees them."""

import time
import tracemalloc
from contextlib import suppress

import onnx
import onnxruntime
import pytest
from fixtures.hostile_graphs import NAMES, edited, hostile
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, graph_bytes, write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.errors import ArtifactError
from floats_edge.runtime.graph_bounds import check_sizes
from floats_edge.runtime.graph_check import graph_bytes as checked_bytes
from floats_edge.runtime.graph_rules import read_parts
from floats_edge.runtime.graph_shapes import RULES
from floats_edge.runtime.onnx_bytes import GraphError, graph_schema
from floats_edge.runtime.ort import open_ort

SECONDS, MEMORY = 2, 256 << 20
WHOLE = edited()


@pytest.fixture(scope="module")
def fixed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("fixed") / "bundle", (0.3,))


def with_graph(bundle: Bundle, graph: bytes) -> Bundle:
    """The bundle with this graph, listed with its hash."""
    (bundle.path / bundle.manifest.graphs[0].file).write_bytes(graph)
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    return open_bundle(bundle.path)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_graph_is_refused_before_anything_runs(
    fixed_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle = with_graph(fixed_bundle, hostile(name))
    for module, loader in ((onnx, "load_model_from_string"), (onnxruntime, "InferenceSession")):
        monkeypatch.setattr(module, loader, lambda *_, **__: pytest.fail("a library was given the graph"))
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(
            ArtifactError, match=r"the graph .*\.onnx (is|has|holds|uses|computes|divides|combines|does|lacks) "
        ):
            open_ort(bundle, "ort-cpu", 0.3)
        assert time.process_time() - begun < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def test_the_graph_that_they_are_made_of_passes(fixed_bundle: Bundle) -> None:
    bundle = with_graph(fixed_bundle, edited())
    assert checked_bytes(bundle, bundle.manifest.graphs[0].file) == edited()


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_every_graph_of_ours_passes(mode: str, precision: str) -> None:
    check_sizes(read_parts(graph_bytes(0.3 if mode in ("fixed", "bank") else None, precision, mode)))


@settings(max_examples=150)
@given(data=st.data())
def test_damage_is_told_as_such_whatever_it_is(data: st.DataObject) -> None:
    """Bytes changed, taken out and doubled anywhere: refused, or a graph that is allowed; no other exception."""
    graph = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(graph) - 1))
        graph[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with suppress(GraphError):
        check_sizes(read_parts(bytes(graph)))


def test_every_operation_has_a_rule_for_its_sizes() -> None:
    assert {operation["makes"] for operation in graph_schema()["operators"].values()} == set(RULES)


def test_the_schema_names_fields_as_onnx_does() -> None:
    for kind, fields in graph_schema()["messages"].items():
        message = onnx
        for part in kind.split("."):
            message = getattr(message, part)
        known = message.DESCRIPTOR.fields_by_number
        assert {int(number): field["name"] for number, field in fields.items()}.items() <= {
            number: field.name for number, field in known.items()
        }.items()


def test_the_schema_names_operations_and_attributes_as_onnx_does() -> None:
    for name, operation in graph_schema()["operators"].items():
        known = onnx.defs.get_schema(name, max(graph_schema()["opsets"]), "")
        kinds = {"float": "FLOAT", "integer": "INT", "tensor": "TENSOR", "floats": "FLOATS", "integers": "INTS"}
        for attribute, holds in operation["attributes"].items():
            kind = kinds.get(holds, "STRING") if isinstance(holds, str) else "STRING"
            assert known.attributes[attribute].type.name == kind
