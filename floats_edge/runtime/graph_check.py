"""Whether a graph is the one that its manifest describes: what it takes, gives and holds, before anything is run."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle
from floats_edge.errors import ArtifactError
from floats_edge.runtime.graph_bounds import check_sizes
from floats_edge.runtime.graph_rules import read_parts
from floats_edge.runtime.onnx_bytes import GraphError

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name; NumPy's uint16 stands for bfloat16."""

_NONE: Arrays = MappingProxyType({})
_ELEMENTS: dict[type[np.generic], str] = {
    np.float32: "float",
    np.float16: "float16",
    np.uint16: "bfloat16",
    np.int8: "int8",
}
"""How ONNX calls the types that graphs take and hold."""


def graph_bytes(bundle: Bundle, file: str) -> bytes:
    """A graph of a bundle, serialised: whatever is to read it may, as it holds nothing but what an export writes.

    Looked at as bytes, before any other library sees them: by what ``export/schema/graph.json`` says it reads no file,
    calls itself nowhere, and makes no tensor larger than networks need.

    Raises:
        ArtifactError: the file is not what was exported, or no such graph.
    """
    data = bundle.read(file)
    try:
        check_sizes(read_parts(data))
    except GraphError as fault:
        raise ArtifactError(f"the graph {bundle.path / file} {fault}.", fix=EXPORT_AGAIN) from None
    return data


def read_graph(bundle: Bundle, file: str) -> "onnx.ModelProto":
    """A graph of a bundle: see :func:`graph_bytes`.

    Raises:
        ArtifactError: the file is not what was exported, or no such graph.
    """
    import onnx

    return onnx.load_model_from_string(graph_bytes(bundle, file))


def check_session(session: "ort.InferenceSession", bundle: Bundle, extra: Arrays = _NONE) -> None:
    """Let a session pass that takes the bundle's images and arrays like ``extra``, and gives its logits.

    Raises:
        ArtifactError: naming the first input or output that is another.
    """
    manifest = bundle.manifest
    inputs = {name: _described(_ELEMENTS[array.dtype.type], array.shape) for name, array in extra.items()}
    inputs[manifest.input.name] = _described("float", (None, *manifest.input.shape))
    outputs = {manifest.output.name: _described("float", (None, len(manifest.output.labels)))}
    for kind, stated, values in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        found = {value.name: _described(value.type.removeprefix("tensor(")[:-1], value.shape) for value in values}
        _compare(bundle, kind, stated, found)


def check_constants(model: "onnx.ModelProto", bundle: Bundle, weights: Arrays) -> None:
    """Let a graph pass that holds constants of the names, types and shapes of ``weights``.

    Raises:
        ArtifactError: naming the first that is missing or another.
    """
    from onnx import TensorProto

    stated = {name: _described(_ELEMENTS[array.dtype.type], array.shape) for name, array in weights.items()}
    found = {
        tensor.name: _described(TensorProto.DataType.Name(tensor.data_type).lower(), tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name in stated
    }
    _compare(bundle, "constant", stated, found)


def check_weights(bundle: Bundle, weights: Mapping[str, NDArray[np.float32] | None]) -> None:
    """Let weights read from a graph pass that are those of the manifest's layers; None: the graph lacks it.

    Raises:
        ArtifactError: naming the first that is missing or of another shape.
    """
    stated = {
        name: _described("float", shape)
        for layer in bundle.manifest.layers
        for name, shape in ((f"{layer.name}.weight", layer.shape), (f"{layer.name}.bias", layer.shape[:1]))
    }
    found = {name: _described("float", array.shape) for name, array in weights.items() if array is not None}
    _compare(bundle, "constant", stated, found)


def _described(element: str, shape: Any) -> str:
    """``float [*, 3, 32, 32]``: a size that is free is a star, whatever its name."""
    return f"{element} [{', '.join(str(size) if isinstance(size, int) else '*' for size in shape)}]"


def _compare(bundle: Bundle, kind: str, stated: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name in (*stated, *found):
        if stated.get(name) != found.get(name):
            raise ArtifactError(
                f"{bundle.path} holds a graph that is not the one of its manifest: {kind} {name}: "
                f"{stated.get(name, 'nothing')} stated, {found.get(name, 'nothing')} found.",
                fix=EXPORT_AGAIN,
            )
