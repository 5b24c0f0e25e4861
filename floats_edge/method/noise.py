"""Frozen, seeded noise that any language can regenerate, so that a bundle stores a seed instead of a tensor.

The draw is defined by integers, not by a library: Philox 4x64-10 (Salmon et al., SC 2011) keyed by
``(seed, layer index)`` gives raw 64-bit words; the top 53 bits of each become a uniform in (0, 1]; consecutive
pairs go through Box-Muller in float64; the result is cast to float32. The C++ kit follows the same steps.
"""

import math

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**14
"""Numbers drawn at once, an even count: what they are computed from then stays in the processor's cache."""


def standard_normal(seed: int, layer_index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw the noise ``eta`` of one layer.

    Args:
        seed: the network's noise seed, 0 <= seed < 2**64.
        layer_index: position of the layer in the network, in the order in which its layers are defined.
        shape: shape of the layer's weight; filled in C order.

    Returns:
        float32 standard-normal tensor of ``shape``, a pure function of the arguments.
    """
    count = math.prod(shape)
    noise = np.empty(count + count % 2, np.float32)
    words = np.random.Philox(key=np.array([seed, layer_index], dtype=np.uint64))
    for start in range(0, len(noise), CHUNK):
        part = noise[start : start + CHUNK]
        uniform = ((words.random_raw(len(part)) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53
        radius = np.sqrt(-2.0 * np.log(uniform[0::2]))
        angle = 2.0 * np.pi * uniform[1::2]
        part[0::2], part[1::2] = radius * np.cos(angle), radius * np.sin(angle)
    return noise[:count].reshape(shape)
