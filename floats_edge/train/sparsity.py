"""A recipe's sparsity, put into the masks of a network and moved while it trains."""

from collections.abc import Mapping

import torch

from floats_edge.errors import RecipeError
from floats_edge.method import semi_structured
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.masks import Move, layer_counts, random_mask, swap_across_layers, swap_within_layers
from floats_edge.recipe import Sparsity

MOVES: dict[str, Move] = {
    "erk": swap_within_layers,
    "uniform": swap_within_layers,
    "importance": swap_across_layers,
}


def mask_move(sparsity: Sparsity) -> Move:
    """How the recipe's masks move."""
    return semi_structured.swap_within_groups if sparsity.pattern == "2:4" else MOVES[sparsity.layer_densities]


def draw_masks(weights: Mapping[str, ConditionedWeight], sparsity: Sparsity, seed: int) -> None:
    """Give every weight a random mask of the recipe's pattern and density.

    Raises:
        RecipeError: the density leaves a layer without weights, or a layer is too narrow for the pattern.
    """
    shapes = {name: tuple(weight.theta.shape) for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    if sparsity.pattern == "2:4":
        _check_width(shapes)
        for name, weight in weights.items():
            weight.set_mask(semi_structured.random_mask(shapes[name], generator))
        return
    try:
        counts = layer_counts(shapes, sparsity.density, sparsity.layer_densities)
    except ValueError as error:
        raise RecipeError(f"{error}.", fix="raise sparsity.density or model.width") from None
    for name, weight in weights.items():
        weight.set_mask(random_mask(weight.theta.shape, counts[name], generator))


def _check_width(shapes: Mapping[str, tuple[int, ...]]) -> None:
    narrow = semi_structured.too_narrow(shapes)
    if narrow:
        raise RecipeError(
            f"pattern 2:4 needs {semi_structured.GROUP} input channels; {', '.join(narrow)} has fewer.",
            fix="raise model.width, or use sparsity.pattern=irregular",
        )


def left_dense(weights: Mapping[str, ConditionedWeight], sparsity: Sparsity) -> str | None:
    """A remark that names the layers that pattern 2:4 cannot reach; None if there is nothing to say."""
    if sparsity.pattern != "2:4":
        return None
    names = [name for name, weight in weights.items() if not semi_structured.is_eligible(tuple(weight.theta.shape))]
    if not names:
        return None
    return f"dense, as their input channels do not divide by {semi_structured.GROUP}: {', '.join(names)}"
