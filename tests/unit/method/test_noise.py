"""The noise against a reference that shares no code with it: Philox 4x64-10 in plain integers, Box-Muller in math."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floats_edge.method.noise import CHUNK, standard_normal

WORD = 2**64


def philox_4x64_10(counter: int, key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block of Salmon et al., SC 2011."""
    x0, x1, x2, x3 = (counter >> 64 * word & (WORD - 1) for word in range(4))
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x0, 0xCA5A826395121157 * x2
        x0, x1, x2, x3 = second // WORD ^ x1 ^ k0, second % WORD, first // WORD ^ x3 ^ k1, first % WORD
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
    return x0, x1, x2, x3


def reference(seed: int, layer_index: int, count: int) -> list[float]:
    """What a C++ kit computes; the first block has counter 1."""
    normal: list[float] = []
    for block in range(1, count // 4 + 2):
        words = philox_4x64_10(block, (seed, layer_index))
        for i in (0, 2):
            u, v = ((word >> 11) * 2.0**-53 + 2.0**-53 for word in words[i : i + 2])
            radius = math.sqrt(-2 * math.log(u))
            normal += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return normal[:count]


def test_reference_gives_the_published_vector() -> None:
    """Known answer of Random123 for counter 0 and key 0."""
    assert [f"{word:016x}" for word in philox_4x64_10(0, (0, 0))] == [
        "16554d9eca36314c",
        "db20fe9d672d0fdc",
        "d7e772cee186176b",
        "7e68b68aec7ba23b",
    ]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**63 - 1),
    layer=st.integers(0, 100),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
)
def test_equals_the_reference(seed: int, layer: int, shape: tuple[int, ...]) -> None:
    eta = standard_normal(seed, layer, shape)
    assert eta.shape == shape
    assert eta.dtype == np.float32
    # One step of float32, for a math library that rounds cos otherwise than NumPy.
    np.testing.assert_array_max_ulp(eta.reshape(-1), np.array(reference(seed, layer, eta.size), np.float32), 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 4097])
def test_a_shorter_draw_is_the_start_of_a_longer_one(count: int) -> None:
    np.testing.assert_array_equal(standard_normal(3, 1, (count,)), standard_normal(3, 1, (5000,))[:count])


def test_layers_and_seeds_are_unrelated() -> None:
    draws = [standard_normal(seed, layer, (10_000,)) for seed, layer in ((0, 0), (0, 1), (1, 0), (1, 1))]
    correlation = np.corrcoef(draws)
    assert np.abs(correlation[~np.eye(4, dtype=bool)]).max() < 0.04


def test_is_standard_normal() -> None:
    eta = standard_normal(0, 0, (200_000,)).astype(np.float64)
    assert abs(eta.mean()) < 0.01
    assert abs(eta.std() - 1) < 0.01
    for bound, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert abs((np.abs(eta) < bound).mean() - share) < 0.005
    assert abs(np.corrcoef(eta[0::2], eta[1::2])[0, 1]) < 0.01


def test_a_draw_goes_on_where_a_chunk_ends() -> None:
    count = CHUNK + 7
    eta = standard_normal(3, 5, (count,))
    np.testing.assert_array_max_ulp(eta, np.array(reference(3, 5, count), np.float32), 1)
