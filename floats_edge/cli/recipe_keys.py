"""Every key of a recipe, as ``floats-edge train --keys`` prints them: read off the recipe itself."""

import json
from collections.abc import Iterable
from typing import Any

import click

from floats_edge.recipe import READ_BY_METHOD, Recipe

Schema = dict[str, Any]
"""A JSON schema, or a part of one."""

_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_WORDS = {
    "boolean": "true | false",
    "integer": "whole number",
    "null": "null",
    "number": "number",
    "object": "{name: value, ...}",
    "string": "text",
}


def write_keys(formatter: click.HelpFormatter) -> None:
    """Write the keys by section: ``key=default``, or ``key`` where it must be given; what it does, what it takes."""
    schema = Recipe.model_json_schema()
    _write_section(formatter, "", schema, schema["$defs"], "must be given")


def _write_section(
    formatter: click.HelpFormatter, key: str, section: Schema, parts: dict[str, Schema], needed: str
) -> None:
    prefix = f"{key}." if key else ""
    inside = {prefix + name: entry for name, entry in section["properties"].items()}
    with formatter.section(key or "recipe"):
        formatter.write_text(" ".join((section["description"], *_readers(key))))
        formatter.write_dl(
            [_entry(name, entry, parts, needed) for name, entry in inside.items() if "$ref" not in entry]
        )
    for name, entry in inside.items():
        if "$ref" in entry:
            inner = f"must be given if {name} is" if "default" in entry else needed
            _write_section(formatter, name, _part(entry, parts), parts, inner)


def _readers(key: str) -> Iterable[str]:
    methods = [method for method, sections in READ_BY_METHOD.items() if key in sections]
    if methods:
        yield f"Only method {' and '.join(methods)} reads it."


def _entry(key: str, entry: Schema, parts: dict[str, Schema], needed: str) -> tuple[str, str]:
    told = f"{entry['description']} ({_taken(entry, parts)})"
    if "default" not in entry:
        return key, f"{needed}: {told}"
    default = entry["default"]
    return f"{key}={default if isinstance(default, str) else json.dumps(default)}", told


def _taken(entry: Schema, parts: dict[str, Schema]) -> str:
    """The values that a key takes, as one writes them in YAML."""
    if "anyOf" in entry:
        return " | ".join(_taken(way, parts) for way in entry["anyOf"])
    if "$ref" in entry:
        return f"{{{', '.join(f'{name}: ...' for name in _part(entry, parts)['properties'])}}}"
    if "enum" in entry or "const" in entry:
        return " | ".join(entry.get("enum") or [entry["const"]])
    if "prefixItems" in entry:
        return f"[{', '.join(_taken(item, parts) for item in entry['prefixItems'])}]"
    if entry["type"] == "array":
        return f"[{_taken(entry['items'], parts)}, ...]"
    limits = [f"{sign} {entry[limit]}" for limit, sign in _LIMITS.items() if limit in entry]
    return " ".join((entry.get("format") or _WORDS[entry["type"]], " and ".join(limits))).strip()


def _part(entry: Schema, parts: dict[str, Schema]) -> Schema:
    return parts[entry["$ref"].rpartition("/")[2]]
