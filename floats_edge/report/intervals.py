"""Means over seeds, with their 95 % intervals by Student's t."""

import math
import statistics
from collections.abc import Sequence

_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, two-sided 95 %, of 1 to 9 degrees of freedom."""
_Z95 = 1.959964


def t95(freedom: int) -> float:
    """Student's t, two-sided 95 %; beyond the table by Abramowitz and Stegun 26.7.5, to 1e-4."""
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z = _Z95
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % interval; None for a single value."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, None
    return mean, t95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def seeds_needed(differences: Sequence[float]) -> int | None:
    """How many seeds an interval takes to exclude 0, if their mean and spread stay what they are; None: none would do.

    Args:
        differences: seed by seed, two at least.
    """
    mean, spread = abs(statistics.mean(differences)), statistics.stdev(differences)
    if mean == 0:
        return None
    count = max(2, math.ceil((_Z95 * spread / mean) ** 2))
    while t95(count - 1) * spread / math.sqrt(count) >= mean:
        count += 1
    return count


def seconds(values: Sequence[float]) -> str:
    """Times as a :func:`figure`, their mean to two significant digits at least."""
    mean = statistics.mean(values)
    return figure(values, max(0, 1 - math.floor(math.log10(mean))) if mean else 0)


def figure(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean ± half of the interval; ``sign`` is ``+`` where a sum of both signs is meant."""
    mean, half = interval(values)
    text = f"{mean:{sign},.{digits}f}"
    return text if half is None else f"{text} ± {half:,.{digits}f}"
