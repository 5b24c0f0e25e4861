"""What is compared: variants of recipes, checked to stand on equal footing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from floats_edge.artifacts.study import WITH_KNOB
from floats_edge.errors import RecipeError
from floats_edge.recipe import READ_BY_METHOD, READ_BY_PATTERN, Recipe, base_60, unread
from floats_edge.recipe_file import VARIANTS, parse_recipe, read_values

_EQUAL = (
    *("data", "model.source", "model.name", "model.weights", "train"),
    *("evaluate.attack", "evaluate.images", "attack.epsilon"),
)
"""What all variants share; they differ in method, condition, sparsity, the kind of attack in training, and in the
arguments of the network: a wide sparse one is a rival of a narrow dense one."""


_REFERENCE, _ENVELOPES = "reference", "envelopes"
"""Keys that stand beside ``variants``."""


@dataclass(frozen=True)
class Plan:
    """What is compared with what.

    Attributes:
        variants: recipes on equal footing, by name.
        reference: variant or envelope that the others are compared with, and train as long as.
        envelopes: groups of variants without a knob, by name: what a user could ship in place of one with a knob.
    """

    variants: Mapping[str, Recipe]
    reference: str
    envelopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def reference_variants(self) -> tuple[str, ...]:
        """The variants that are the reference: those of an envelope together."""
        return self.envelopes.get(self.reference, (self.reference,))


def load_plan(sources: Sequence[str | Path], overrides: tuple[str, ...] = ()) -> Plan:
    """Read recipes to compare.

    A source is an ordinary recipe, which is one variant of its own name, or a recipe with a key ``variants``: by name,
    the keys that a variant changes. Overrides apply to all. Of what the variants share, each takes what its method and
    its sparsity pattern read. The key ``reference`` of the first source that has it counts; without any, the first
    variant is the reference. Envelopes of all sources count.

    Raises:
        RecipeError: a recipe is not valid, a name occurs twice or is not known, or the variants are not on equal
            footing.
    """
    plan: dict[str, Recipe] = {}
    references: list[str] = []
    envelopes: dict[str, tuple[str, ...]] = {}
    for source in sources:
        values = read_values(source, overrides)
        variants = values.pop(VARIANTS, None) or {str(values.get("name")): {}}
        if not isinstance(variants, dict):
            raise RecipeError(f"{source}: variants names no variants.", fix="write variants: {name: {key: value}}")
        references += [str(values.pop(_REFERENCE))] if _REFERENCE in values else []
        envelopes |= _envelopes(values.pop(_ENVELOPES, {}), source)
        for name, changes in variants.items():
            if name in plan:
                raise RecipeError(f"there are two variants {name!r}.", fix="rename one of them")
            changed = _merged(_read_of(values, _merged(values, changes or {})), changes or {})
            plan[name] = parse_recipe({**changed, "name": name}, f"{source}, variant {name}")
    _check_equal(plan)
    _check_envelopes(envelopes, plan)
    reference = references[0] if references else next(iter(plan))
    if reference not in (*plan, *envelopes):
        known = ", ".join((*plan, *envelopes))
        raise RecipeError(f"there is no variant {reference!r} to refer to.", fix=f"set reference to one of: {known}")
    return Plan(plan, reference, envelopes)


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with its ``seed``-th seed; the first is its own."""
    return recipe.model_copy(update={"seed": recipe.seed + seed})


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe, trained for ``epochs``."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": epochs})})


def _envelopes(values: object, source: str | Path) -> dict[str, tuple[str, ...]]:
    if not isinstance(values, dict) or not all(isinstance(names, list) and names for names in values.values()):
        raise RecipeError(f"{source}: envelopes names no variants.", fix="write envelopes: {name: [variant, variant]}")
    return {str(name): tuple(map(str, names)) for name, names in values.items()}


def _check_envelopes(envelopes: Mapping[str, tuple[str, ...]], plan: Mapping[str, Recipe]) -> None:
    for name, members in envelopes.items():
        if name in plan:
            raise RecipeError(f"{name!r} is a variant and an envelope.", fix="rename one of them")
        for member in members:
            if members.count(member) > 1:
                raise RecipeError(f"envelope {name} names {member!r} twice.", fix="name it once")
            if member not in plan:
                known = ", ".join(plan)
                raise RecipeError(f"envelope {name}: there is no variant {member!r}.", fix=f"name some of: {known}")
            if (method := plan[member].method) in WITH_KNOB:
                raise RecipeError(
                    f"envelope {name}: {member} is of method {method}, which has a knob; an envelope is of single "
                    "networks.",
                    fix=f"take {member} out of the envelope",
                )


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
