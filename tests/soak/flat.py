"""Whether something grows with the work done: the slope of a line that outliers cannot move."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Final, NamedTuple

POINTS_MAX: Final = 200  # so many pairs are 20,000


class Point(NamedTuple):
    requests: int
    value: float


def growth(points: Sequence[Point]) -> float:
    """Of the value by request: the median of the slopes between all pairs (Theil and Sen)."""
    step = max(1, len(points) // POINTS_MAX)
    slopes = [
        (later.value - earlier.value) / (later.requests - earlier.requests)
        for earlier, later in combinations(points[::step], 2)
        if later.requests > earlier.requests
    ]
    assert slopes, "nothing was done"
    return median(slopes)
