"""How many images are evaluated or attacked at once."""

from floats_edge.recipe import Recipe

LARGEST_BATCH = 128


def evaluation_batch(recipe: Recipe) -> int:
    """As many as a step of training takes, lest evaluating needs more memory than training did, and at most 128."""
    return min(recipe.train.batch_size, LARGEST_BATCH)
