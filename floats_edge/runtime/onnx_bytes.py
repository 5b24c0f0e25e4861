"""The bytes of an ONNX graph, field by field: what ``export/schema/graph.json`` does not name is refused.

A graph from a stranger is looked at here before ``onnx`` or ONNX Runtime sees it. Both follow whatever protobuf allows:
graphs in graphs without end, functions that call themselves, constants in any file of the machine. This reader knows
the few messages that an export writes, none of which can hold itself, and copies nothing that is large.

Where protobuf would make something of a message that no exporter writes, this refuses: a field twice that may stand
once (protobuf merges, or takes the last), a key of more than two bytes, a group.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How protobuf may store a field: its wire types."""

_SIGN: Final = 1 << 63
_SINGULAR: Final = 1


class GraphError(ValueError):
    """What is wrong with a graph, as the rest of a sentence that begins with the name of its file."""


@dataclass(frozen=True)
class Field:
    """What a field of a message may be.

    Attributes:
        name: as ``onnx.proto`` calls it.
        holds: ``integer``, ``float``, ``bytes``, ``text``, ``name`` (printable ASCII), ``nothing`` (an empty string),
            or a message's name.
        most: how often it may stand in one message.
    """

    name: str
    holds: str
    most: int


Message = dict[str, list[Any]]
"""The values of each field that stands in a message; those of messages in it are their bytes, not yet read."""


@cache
def graph_schema() -> Mapping[str, Any]:
    """What a graph may hold; C++ reads the same file."""
    inside = Path(__file__).with_name("graph.json")  # in a wheel
    file = inside if inside.is_file() else Path(__file__).parents[2] / "export" / "schema" / "graph.json"
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def _fields(kind: str) -> Mapping[int, Field]:
    return {int(number): Field(**field) for number, field in graph_schema()["messages"][kind].items()}


def read_message(data: memoryview, kind: str) -> Message:
    """The fields of one message; messages in it are left as bytes.

    Args:
        data: the message.
        kind: what ``onnx.proto`` calls it.

    Raises:
        GraphError: it is no such message, or holds what it may not.
    """
    known = _fields(kind)
    message: Message = {}
    for number, wire, value in _raw_fields(data):
        field = known.get(number)
        if field is None:
            raise GraphError(f"has field {number} in {_named(kind, message)}, which no export writes")
        values = message.setdefault(field.name, [])
        values += _values(field, wire, value)
        if len(values) > field.most:
            raise GraphError(f"has more than {field.most} {field.name} in {_named(kind, message)}")
    return message


def only(message: Message, name: str, default: Any = None) -> Any:
    """The value of a field that stands once, or ``default``."""
    return message.get(name, (default,))[0]


def _named(kind: str, message: Message) -> str:
    name = only(message, "name")
    return f"{kind} {name}" if name else kind


def _raw_fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field: an int of a varint, otherwise the bytes."""
    at = 0
    while at < len(data):
        key, start = _varint(data, at)
        if start - at > 2:
            raise GraphError("has a field number that ONNX does not know")
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, start)
        else:
            if wire == BYTES:
                size, start = _varint(data, start)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise GraphError("is not valid ONNX: a field of an unknown kind")
            at = start + size
            if at > len(data):
                raise GraphError("is not valid ONNX: it is cut off")
            value = data[start:at]
        yield number, wire, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise GraphError("is not valid ONNX: it is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise GraphError("is not valid ONNX: a number that does not end")


def _values(field: Field, wire: int, value: Any) -> list[Any]:
    """What one occurrence of a field adds: several values if they are packed."""
    repeated = field.most > _SINGULAR
    if field.holds == "integer" and (wire == VARINT or (wire == BYTES and repeated)):
        return [_signed(number) for number in ([value] if wire == VARINT else _packed_integers(value, field))]
    if field.holds == "float" and (wire == FIXED32 or (wire == BYTES and repeated)):
        if len(value) % 4 or len(value) > 4 * field.most:
            raise GraphError(f"has a damaged {field.name}")
        return [number for (number,) in struct.iter_unpack("<f", value)]
    if field.holds in ("integer", "float") or wire != BYTES:
        raise GraphError(f"is not valid ONNX: {field.name} is stored as something else")
    if field.holds == "nothing" and len(value):
        raise GraphError(f"has another {field.name} than ONNX's own")
    return [_name(value, field)] if field.holds == "name" else [value]


def _packed_integers(data: memoryview, field: Field) -> list[int]:
    numbers: list[int] = []
    at = 0
    while at < len(data) and len(numbers) <= field.most:
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _signed(number: int) -> int:
    return number - (number & _SIGN) * 2


def _name(data: memoryview, field: Field) -> str:
    """Names reach logs, and C, which ends them at a zero: only what can be printed may be one."""
    if len(data) > graph_schema()["bounds"]["name_bytes"]:
        raise GraphError(f"has a name ({field.name}) that is too long")
    if not all(0x20 <= byte < 0x7F for byte in data):
        raise GraphError(f"has a name ({field.name}) that cannot be printed in ASCII")
    return str(data, "ascii")
