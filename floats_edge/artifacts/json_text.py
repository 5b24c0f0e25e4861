"""JSON from strangers: text that every reader takes for the same value, and that is small enough to be read.

The C++ kit has the same rules, in ``json_text.cpp``.
"""

import json
from collections.abc import Iterable
from typing import Any

DEEPEST = 32
"""Objects and arrays around a value."""
LONGEST_KEY = 512
"""In characters."""
MOST_COMMAS = 2**16
"""In a text, unless more is allowed, which holds about as many values at most: reading costs time by value."""


def checked_json(data: bytes, most_commas: int = MOST_COMMAS) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, it holds more than ``most_commas``, it is nested more than :data:`DEEPEST` deep, or
            an object holds a key twice or one that is longer than :data:`LONGEST_KEY`.
    """
    if data.count(b",") > most_commas:
        raise ValueError(f"it holds more than {most_commas} values")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    if any(len(key) > LONGEST_KEY for key in found):
        raise ValueError(f"a key is longer than {LONGEST_KEY} characters")
    return found


def _check_depth(value: Any) -> None:
    level = _nested([value])
    for _ in range(DEEPEST):
        level = [inner for each in level for inner in _nested(each.values() if isinstance(each, dict) else each)]
    if level:
        raise _too_deep()


def _nested(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEEPEST} deep")
