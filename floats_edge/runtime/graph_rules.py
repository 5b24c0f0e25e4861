"""What a graph holds, read from its bytes by the rules of ``export/schema/graph.json``; anything else is refused."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from floats_edge.runtime.onnx_bytes import GraphError, Message, graph_schema, only, read_message

_ANY_TEXT = "text"


@dataclass(frozen=True)
class Tensor:
    """A constant: its elements are ``raw``, of exactly the size that ``dims`` say."""

    name: str
    element: int
    dims: tuple[int, ...]
    raw: memoryview


@dataclass(frozen=True)
class Node:
    """One operation. An input that is left out is the empty string; attributes are plain values or tensors."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def makes(self) -> str:
        """The rule for the sizes of its results: see :mod:`floats_edge.runtime.graph_sizes`."""
        return graph_schema()["operators"][self.operator]["makes"]


@dataclass(frozen=True)
class Port:
    """What an input or output of a graph is said to be; None for a size that is free."""

    element: int
    dims: tuple[int | None, ...]


@dataclass(frozen=True)
class Parts:
    """A graph, read as far as its constants; nodes are read when they are asked for."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]
    constants: dict[str, Tensor]
    serialised_nodes: tuple[memoryview, ...]

    def nodes(self) -> Iterator[Node]:
        """Every operation, in the graph's order.

        Raises:
            GraphError: one that may not be there.
        """
        return map(_node, self.serialised_nodes)


def read_parts(data: bytes) -> Parts:
    """Read a serialised model.

    Raises:
        GraphError: it is no model, or holds what it may not.
    """
    schema = graph_schema()
    model = read_message(memoryview(data), "ModelProto")
    if only(model, "ir_version") not in schema["ir_versions"]:
        raise GraphError(f"is of a version of ONNX's format that is not one of {schema['ir_versions']}")
    opset = read_message(only(model, "opset_import", memoryview(b"")), "OperatorSetIdProto")
    if only(opset, "version") not in schema["opsets"]:
        raise GraphError(f"is of an opset that is not one of {schema['opsets']}")
    if "graph" not in model:
        raise GraphError("holds no graph")
    graph = read_message(only(model, "graph"), "GraphProto")
    for holder in (model, graph):
        _check_texts(holder)
    tensors = [_tensor(message) for message in graph.get("initializer", ())]
    inputs = [_value(message) for message in graph.get("input", ())]
    parts = Parts(
        inputs=dict(inputs),
        outputs=dict(_value(message) for message in graph.get("output", ())),
        constants={tensor.name: tensor for tensor in tensors},
        serialised_nodes=tuple(graph.get("node", ())),
    )
    if len(parts.inputs.keys() | parts.constants.keys()) < len(tensors) + len(inputs):
        raise GraphError("has two inputs or constants of one name")
    return parts


def _check_texts(message: Message) -> None:
    for entry in message.get("metadata_props", ()):
        read_message(entry, "StringStringEntryProto")


def _tensor(data: memoryview) -> Tensor:
    message = read_message(data, "TensorProto")
    sizes = graph_schema()["element_bytes"]
    name, element = only(message, "name", ""), only(message, "data_type")
    dims, raw = tuple(message.get("dims", ())), only(message, "raw_data", memoryview(b""))
    if str(element) not in sizes:
        raise GraphError(f"has a constant {name} of type {element}, which no export writes")
    if min(dims, default=0) < 0 or math.prod(dims) * sizes[str(element)] != len(raw):
        raise GraphError(f"has a constant {name} that is not of the size it states")
    return Tensor(name, element, dims, raw)


def _value(data: memoryview) -> tuple[str, Port]:
    """An input or output by its name."""
    message = read_message(data, "ValueInfoProto")
    _check_texts(message)
    name = only(message, "name", "")
    tensor = read_message(only(message, "type", memoryview(b"")), "TypeProto")
    stated = read_message(only(tensor, "tensor_type", memoryview(b"")), "TypeProto.Tensor")
    if str(only(stated, "elem_type")) not in graph_schema()["element_bytes"] or "shape" not in stated:
        raise GraphError(f"has an input or output {name} without a type and a shape that an export writes")
    dims: list[int | None] = []
    for dimension in read_message(only(stated, "shape"), "TensorShapeProto").get("dim", ()):
        size = read_message(dimension, "TensorShapeProto.Dimension")
        if len(size) != 1 or only(size, "dim_value", 0) < 0:
            raise GraphError(f"has an input or output {name} of no shape that an export writes")
        dims.append(only(size, "dim_value"))
    return name, Port(only(stated, "elem_type"), tuple(dims))


def _node(data: memoryview) -> Node:
    message = read_message(data, "NodeProto")
    operator = only(message, "op_type", "")
    rule = graph_schema()["operators"].get(operator)
    if rule is None:
        raise GraphError(f"has an operation {operator or 'without a name'}, which no export writes")
    inputs, outputs = tuple(message.get("input", ())), tuple(message.get("output", ()))
    least, most = rule["inputs"]
    if not least <= len(inputs) <= most or not all(inputs[:least]) or not 1 <= len(outputs) <= rule["outputs"]:
        raise GraphError(f"has an operation {operator} of {len(inputs)} inputs and {len(outputs)} outputs")
    attributes: dict[str, Any] = {}
    for entry in message.get("attribute", ()):
        attribute = read_message(entry, "AttributeProto")
        name = only(attribute, "name", "")
        if name not in rule["attributes"] or name in attributes:
            raise GraphError(f"has an attribute {name} of {operator}, which no export writes")
        attributes[name] = _attribute(f"{operator}.{name}", attribute, rule["attributes"][name])
    return Node(operator, inputs, outputs, attributes)


def _attribute(name: str, message: Message, holds: str | list[str]) -> Any:
    kind = holds if isinstance(holds, str) else _ANY_TEXT
    number, field = graph_schema()["attribute_types"][kind]
    if only(message, "type") != number or not message.keys() <= {"name", "type", field}:
        raise GraphError(f"has an attribute {name} of another type than an export writes")
    if kind in ("integers", "floats"):
        return message.get(field, [])
    if field not in message:
        raise GraphError(f"has an attribute {name} without a value")
    value = only(message, field)
    if not isinstance(holds, str) and value not in holds:
        raise GraphError(f"has an attribute {name} that is none of {', '.join(holds)}")
    return _tensor(value) if kind == "tensor" else value
