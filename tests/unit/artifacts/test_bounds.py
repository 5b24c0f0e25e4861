"""Nothing that a manifest says of itself can be of any size, nor drive the terminal that shows it."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from floats_edge.artifacts.bounds import MOST_LAMBDAS, Lambdas, Name, Remark
from floats_edge.artifacts.manifest import Manifest


def _unbounded(schema: Any, path: str = "") -> Iterator[str]:
    """Where a JSON Schema lets a list, an object or a text be of any size."""
    if isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from _unbounded(each, f"{path}/{index}")
    if not isinstance(schema, dict):
        return
    limit = {"array": "maxItems", "string": "maxLength"}.get(str(schema.get("type")))
    listed = {"enum", "const"} & set(schema) or schema.get("format") == "path" or "64" in schema.get("pattern", "")
    if limit is not None and limit not in schema and not listed:
        yield path
    if isinstance(schema.get("additionalProperties"), dict) and "maxProperties" not in schema:
        yield path
    for key, value in schema.items():
        yield from _unbounded(value, f"{path}/{key}")


def test_every_list_and_text_of_a_manifest_is_bounded() -> None:
    """But for a path of the recipe, which no one follows, and what a pattern bounds."""
    assert list(_unbounded(Manifest.model_json_schema())) == []


@pytest.mark.parametrize("kind", [Name, Remark])
@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x7f", "\x9b2J", "\0"])
def test_text_that_a_terminal_would_obey_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(ValidationError, match="control character"):
        TypeAdapter(kind).validate_python(text)


def test_text_of_any_language_is_taken() -> None:
    assert TypeAdapter(Name).validate_python("Schäferhund 犬") == "Schäferhund 犬"


@pytest.mark.parametrize("lambdas", [(), (0.5, 0.5), (0.0, -0.0), (0.1, 0.10000000001), (0.0,) * (MOST_LAMBDAS + 1)])
def test_lambdas_that_no_engine_tells_apart_are_refused(lambdas: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Lambdas).validate_python(lambdas)
