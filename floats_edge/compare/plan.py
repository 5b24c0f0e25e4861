"""What is compared: variants of recipes, checked to stand on equal footing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from floats_edge.errors import RecipeError
from floats_edge.recipe import READ_BY_METHOD, READ_BY_PATTERN, Recipe, base_60, unread
from floats_edge.recipe_file import VARIANTS, parse_recipe, read_values

_EQUAL = ("data", "model", "train", "evaluate.attack", "evaluate.images", "attack.epsilon")
"""What all variants share; method, condition, sparsity and the kind of attack in training are what they differ in."""


def load_plan(sources: Sequence[str | Path], overrides: tuple[str, ...] = ()) -> dict[str, Recipe]:
    """Read recipes to compare, by the names of their variants.

    A source is an ordinary recipe, which is one variant of its own name, or a recipe with a key ``variants``: by name,
    the keys that a variant changes. Overrides apply to all. Of what the variants share, each takes what its method and
    its sparsity pattern read.

    Raises:
        RecipeError: a recipe is not valid, a name occurs twice, or the variants are not on equal footing.
    """
    plan: dict[str, Recipe] = {}
    for source in sources:
        values = read_values(source, overrides)
        variants = values.pop(VARIANTS, None) or {str(values.get("name")): {}}
        if not isinstance(variants, dict):
            raise RecipeError(f"{source}: variants names no variants.", fix="write variants: {name: {key: value}}")
        for name, changes in variants.items():
            if name in plan:
                raise RecipeError(f"there are two variants {name!r}.", fix="rename one of them")
            changed = _merged(_read_of(values, _merged(values, changes or {})), changes or {})
            plan[name] = parse_recipe({**changed, "name": name}, f"{source}, variant {name}")
    _check_equal(plan)
    return plan


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with its ``seed``-th seed; the first is its own."""
    return recipe.model_copy(update={"seed": recipe.seed + seed})


def _read_of(shared: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    """Of what variants share, that which the method and the sparsity pattern of one of them read."""
    skipped = unread(str(variant.get("method", "float")), READ_BY_METHOD)
    left = {key: value for key, value in shared.items() if key not in skipped}
    sparsity, own = left.get("sparsity"), variant.get("sparsity")
    if isinstance(sparsity, dict) and isinstance(own, dict):
        skipped = unread(str(base_60(own.get("pattern", "irregular"))), READ_BY_PATTERN)
        left["sparsity"] = {key: value for key, value in sparsity.items() if key not in skipped}
    return left


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _check_equal(plan: Mapping[str, Recipe]) -> None:
    (first, reference), *others = plan.items()
    for name, recipe in others:
        for key in (*_EQUAL, "seed"):
            one, other = _value(reference, key), _value(recipe, key)
            if one != other:
                raise RecipeError(
                    f"{first} and {name} are not on equal footing: they differ in {key}.",
                    fix=f"give all variants the same {key}, for example with -o",
                )


def _value(recipe: Recipe, key: str) -> object:
    value: object = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value
