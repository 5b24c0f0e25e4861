"""Recipes as people write them: YAML files, and ``section.key=value`` on a command line."""

import difflib
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from floats_edge.errors import RecipeError
from floats_edge.recipe import Recipe

VARIANTS = "variants"
"""Key of a recipe to compare: what its variants change, by their names."""

_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError for a date like 2001-99-99 or bytes that are not UTF-8, RecursionError for [[[[…."""


def recipe_folder() -> Path:
    """Where the recipes that come with the package stand: inside a wheel, or at the top of a checkout."""
    package = Path(__file__).parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def load_recipe(source: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        source: a YAML file, or the name of a recipe that comes with the package.
        overrides: ``section.key=value`` each, the value in YAML.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key, or a value that is not valid.
    """
    values = read_values(source, overrides)
    if VARIANTS in values:
        raise RecipeError(f"{source} compares several recipes.", fix=f"floats-edge compare {source}")
    return parse_recipe(values, str(source))


def read_values(source: str | Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The plain values of a recipe, or of recipes to compare, with overrides applied and nothing validated.

    Raises:
        RecipeError: no such recipe, not YAML, or an override that is not of the form ``key=value``.
    """
    path = Path(source)
    named = recipe_folder() / f"{source}.yaml"
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        path = named
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in recipe_folder().glob("*.yaml")))
        raise RecipeError(f"there is no recipe {str(source)!r}.", fix=f"name a YAML file or one of: {known}") from None
    except (OSError, *_NOT_YAML) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path} cannot be read as YAML: {reason}.", fix="correct the file") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} is not a recipe: it holds no keys.", fix="start from a file under recipes/")
    for override in overrides:
        _override(values, override)
    return values


def parse_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Validate plain values as a recipe; ``origin`` names them in errors.

    Raises:
        RecipeError: an unknown key, a value that is not valid, or keys that are missing.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        problem = next((problem for problem in problems if problem["type"] != "missing"), None)
        if problem is None:
            missing = ", ".join(key for problem in problems for key in _needed(problem["loc"]))
            raise RecipeError(
                f"{origin}: these keys are missing: {missing}.",
                fix="add them to the recipe or with -o KEY=VALUE; floats-edge train --keys says what each takes",
            ) from None
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise RecipeError(f"{origin}: there is no key {key!r}.", fix=_suggest(problem["loc"])) from None
        message = problem["msg"].removeprefix("Value error, ")
        if not key:
            raise RecipeError(f"{origin}: {message}.", fix="correct one of the two in the recipe or with -o") from None
        raise RecipeError(
            f"{origin}: {key}: {message}.", fix=f"correct {key} in the recipe or with -o {key}=…"
        ) from None


def override_recipe(recipe: Recipe, overrides: tuple[str, ...]) -> Recipe:
    """A recipe with some keys changed: ``section.key=value`` each.

    Raises:
        RecipeError: an unknown key or a value that is not valid.
    """
    values = recipe.model_dump()
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, recipe.name)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that :func:`load_recipe` reads back to the same value."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not (key and equals):
        raise RecipeError(f"override {override!r} is not of the form key=value.", fix="write -o train.epochs=5")
    *parents, last = key.strip().split(".")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(f"override {override!r}: {parent} has no keys.", fix=_suggest((key,)))
    try:
        section[last] = yaml.safe_load(text)
    except _NOT_YAML:
        raise RecipeError(f"override {override!r}: {text!r} is not YAML.", fix="quote the value") from None


def _suggest(loc: tuple[int | str, ...]) -> str:
    """Name the keys that exist where ``loc`` points, the nearest first."""
    keys = list(_section(loc[:-1]).model_fields)
    near = difflib.get_close_matches(str(loc[-1]), keys, n=1)
    return (
        f"did you mean {'.'.join((*map(str, loc[:-1]), *near))!r}?" if near else f"the keys here are: {', '.join(keys)}"
    )


def _needed(loc: tuple[int | str, ...]) -> list[str]:
    """The key at ``loc``, or those without a default in the section at ``loc``."""
    fields = _section(loc[:-1]).model_fields
    if not _sections(fields[str(loc[-1])].annotation):
        return [".".join(map(str, loc))]
    inside = _section(loc).model_fields.items()
    return [key for name, field in inside if field.is_required() for key in _needed((*loc, name))]


def _section(loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The part of a recipe that ``loc`` points at."""
    section: type[BaseModel] = Recipe
    for part in loc:
        section = _sections(section.model_fields[str(part)].annotation)[0]
    return section


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Those among the types of a key that have keys of their own."""
    kinds = (annotation, *typing.get_args(annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
