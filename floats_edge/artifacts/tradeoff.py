"""The plane of clean and robust accuracy, in percent: what points of it are worth."""

from collections.abc import Sequence

Point = tuple[float, float]
"""Clean % and robust % of one network at one lambda."""


def hypervolume(points: Sequence[Point]) -> float:
    """Area of the plane that the points dominate, the origin as reference: 0 to 10,000."""
    area = best = 0.0
    for clean, robust in sorted(points, reverse=True):
        area += clean * max(0.0, robust - best)
        best = max(best, robust)
    return area


def area_beyond(points: Sequence[Point], single: Point) -> float:
    """Area that the points dominate and a single network does not."""
    return hypervolume([*points, single]) - hypervolume([single])


def envelope_clean(networks: Sequence[Point], robust: float) -> float | None:
    """The most clean % that a choice among networks offers with at least ``robust`` %; None: none is as robust.

    Which network serves an image may be drawn anew each time, so the upper right of the points' convex hull counts: a
    harder rival than the staircase of the points themselves. An attacker who does not know the draw breaks no more
    images than one who attacks each network by itself.
    """
    enough = [point for point in networks if point[1] >= robust]
    short = [point for point in networks if point[1] < robust]
    drawn = [
        clean + (other - clean) * (robust - less) / (more - less) for clean, less in short for other, more in enough
    ]
    return max([clean for clean, _ in enough] + drawn, default=None)
