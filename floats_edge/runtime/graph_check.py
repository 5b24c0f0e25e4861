"""Whether a graph is the one that its manifest describes: what it takes, gives and holds, before anything is run."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle
from floats_edge.errors import ArtifactError
from floats_edge.runtime.graph_bounds import check_sizes
from floats_edge.runtime.graph_rules import Parts, read_parts
from floats_edge.runtime.onnx_bytes import GraphError

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name; NumPy's uint16 stands for bfloat16."""

NONE: Arrays = MappingProxyType({})
"""No arrays."""
_ELEMENTS: dict[type[np.generic], str] = {
    np.float32: "float",
    np.float16: "float16",
    np.uint16: "bfloat16",
    np.int8: "int8",
}
"""How ONNX calls the types that graphs take and hold."""
_NUMBERS = {1: "float", 3: "int8", 10: "float16", 16: "bfloat16"}
"""The same by their numbers in a file."""


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


def check_session(session: "ort.InferenceSession", bundle: Bundle, extra: Arrays = NONE) -> None:
    """Let a session pass that takes the bundle's images and arrays like ``extra``, and gives its logits.

    Raises:
        ArtifactError: naming the first input or output that is another.
    """
    ports = {"input": session.get_inputs(), "output": session.get_outputs()}
    for (kind, stated), values in zip(_stated(bundle, extra).items(), ports.values(), strict=True):
        found = {value.name: _described(value.type.removeprefix("tensor(")[:-1], value.shape) for value in values}
        _compare(bundle, kind, stated, found)


def check_constants(model: "onnx.ModelProto", bundle: Bundle, weights: Arrays) -> None:
    """Let a graph pass that holds constants of the names, types and shapes of ``weights``.

    Raises:
        ArtifactError: naming the first that is missing or another.
    """
    from onnx import TensorProto

    stated = _like(weights)
    found = {
        tensor.name: _described(TensorProto.DataType.Name(tensor.data_type).lower(), tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name in stated
    }
    _compare(bundle, "constant", stated, found)


def check_parts(parts: Parts, bundle: Bundle, extra: Arrays = NONE, constants: Arrays = NONE) -> None:
    """Let a graph pass that takes the bundle's images and arrays like ``extra``, and holds arrays like ``constants``.

    Raises:
        ArtifactError: naming the first input, output or constant that is another.
    """
    held = {name: _numbered(t.element, t.dims) for name, t in parts.constants.items() if name in constants}
    _compare(bundle, "constant", _like(constants), held)
    ports = {"input": parts.inputs, "output": parts.outputs}
    for (kind, stated), found in zip(_stated(bundle, extra).items(), ports.values(), strict=True):
        _compare(bundle, kind, stated, {name: _numbered(port.element, port.dims) for name, port in found.items()})


def _like(arrays: Arrays) -> dict[str, str]:
    return {name: _described(_ELEMENTS[array.dtype.type], array.shape) for name, array in arrays.items()}


def _stated(bundle: Bundle, extra: Arrays) -> dict[str, dict[str, str]]:
    """The inputs and outputs of a graph that takes arrays like ``extra`` beside the images."""
    manifest = bundle.manifest
    images = {manifest.input.name: _described("float", (None, *manifest.input.shape))}
    logits = {manifest.output.name: _described("float", (None, len(manifest.output.labels)))}
    return {"input": _like(extra) | images, "output": logits}


def _numbered(element: int, shape: Any) -> str:
    return _described(_NUMBERS.get(element, f"type {element}"), shape)


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
