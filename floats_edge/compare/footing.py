"""How long each variant trains: as many epochs, images or seconds as the reference."""

import math
from collections.abc import Callable
from pathlib import Path

from floats_edge.artifacts.study import STUDY, Budget, Equal, Footing, Timing
from floats_edge.compare.plan import Plan
from floats_edge.compare.timing import time_epochs
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError
from floats_edge.networks.spec import NO_CODE, Code
from floats_edge.recipe import Method, Recipe
from floats_edge.training.resume import changed_keys


def _once(recipe: Recipe) -> int:
    return recipe.train.batch_size


def _twice(recipe: Recipe) -> int:
    return 2 * recipe.train.batch_size


def _clean_and_half_attacked(recipe: Recipe) -> int:
    """FLOAT's: half clean and half attacked, or all clean and half of them attacked again."""
    batch = recipe.train.batch_size
    return batch if recipe.condition.clean_images == "half" else batch + batch // 2


def _clean_and_most_attacked(recipe: Recipe) -> int:
    """OAT's: of the images that are trained clean, only those of lambda 0 are not attacked."""
    return 2 * recipe.train.batch_size - math.ceil(recipe.train.batch_size / len(recipe.oat.lambdas))


SEEN: dict[Method, Callable[[Recipe], int]] = {
    "float": _clean_and_half_attacked,
    "oat": _clean_and_most_attacked,
    "pgd-at": lambda recipe: _once(recipe) if recipe.pgd_at.weight == 1 else _twice(recipe),
    "trades": _twice,
    "standard": _once,
}
"""How many images, clean or attacked, the network sees at one update; those of the attack itself do not count."""


def find_footing(
    plan: Plan,
    equal: Equal,
    kept: Footing | None,
    splits: Splits,
    device: str = "cpu",
    code: Code = NO_CODE,
) -> Footing:
    """The epochs of every variant of a plan: those that were kept, and for the others new ones.

    The variants of the reference train the epochs of their recipes; every other one trains so many that it has as much
    as they have together, to whole epochs.

    Args:
        plan: of all variants.
        equal: what they have as much of.
        kept: what was chosen earlier.
        splits: images of the first seed.
        device: a torch device, to time on.
        code: of the user's that stands for the network.
    """
    budgets = {} if kept is None else kept.budgets
    new = [name for name in plan.variants if name not in budgets]
    if kept is not None and not new:
        return kept
    together = plan.reference_variants
    images = {name: _images(recipe, splits) for name, recipe in plan.variants.items()}
    timings: dict[str, Timing] = {}
    if equal == "seconds":
        timed = {name: recipe for name, recipe in plan.variants.items() if name in (*new, *together)}
        timings = time_epochs(timed, splits, device, code)
    costs = {name: timings[name].median if equal == "seconds" else images[name] for name in (*new, *together)}
    found = {}
    for name in new:
        recipe = plan.variants[name]
        epochs = recipe.train.epochs
        if equal != "epochs" and name not in together:
            epochs = max(1, round(epochs * sum(costs[member] for member in together) / costs[name]))
        found[name] = Budget(recipe=recipe, epochs=epochs, images=images[name], timing=timings.get(name))
    return Footing(equal=equal, reference=together, budgets={**budgets, **found})


def check_kept(kept: Footing, plan: Plan, equal: Equal, folder: Path) -> None:
    """Check that a study can be continued with this plan.

    Raises:
        ArtifactError: it was begun on another footing, or with other recipes.
    """
    study, another = folder / STUDY, "choose another folder with --out"
    if kept.equal != equal:
        raise ArtifactError(
            f"{study} was begun with --equal {kept.equal}.", fix=f"continue it with --equal {kept.equal}, or {another}"
        )
    if equal != "epochs" and kept.reference != plan.reference_variants:
        before, now = (" + ".join(names) for names in (kept.reference, plan.reference_variants))
        raise ArtifactError(
            f"{study} was begun with variants that train as long as {before}, not {now}.",
            fix=f"set reference as it was, or {another}",
        )
    for name, recipe in plan.variants.items():
        if name in kept.budgets and (changed := changed_keys(kept.budgets[name].recipe, recipe)):
            raise ArtifactError(
                f"{study} was begun with another variant {name}: {', '.join(changed)} differ.",
                fix=f"give the recipe and the options as before, or {another}",
            )


def _images(recipe: Recipe, splits: Splits) -> int:
    return len(splits.train) // recipe.train.batch_size * SEEN[recipe.method](recipe)
