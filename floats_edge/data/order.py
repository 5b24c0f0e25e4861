"""Orders that are a pure function of a seed, so that one recipe gives the same arrays everywhere."""

import numpy as np

from floats_edge.images import Indices

TEST_SEED = 0
"""Shuffles test images: the first n are the same random n in every evaluation, whatever the recipe says."""


def permutation(count: int, seed: int) -> Indices:
    """``0 .. count - 1`` shuffled by raw Philox words, which are the same in every version of NumPy."""
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")
