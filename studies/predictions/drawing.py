"""Bootstrap over images: the walks of one image, on every network of a group, are drawn together."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DRAWS = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A number with its percentile bootstrap interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        if np.isnan(self.value):
            return "–"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def cell(self, spec: str, width: int) -> str:
        """The text of a table's cell."""
        return f"{format(self, spec):>{width}}"

    @property
    def covers_zero(self) -> bool:
        return self.low <= 0 <= self.high


def over_images(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Interval:
    """``statistic`` of sums over images, (images, …) → (…), where it takes (draws, …) and returns (draws,)."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)
    flat = sums.reshape(len(sums), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic((counts @ flat).reshape(DRAWS, *sums.shape[1:]))
        centre = statistic(sums.sum(axis=0, keepdims=True))[0]
    if np.isnan(drawn).all():
        return Interval(float(centre), np.nan, np.nan)
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(drawn, (tail, 100 - tail))
    return Interval(float(centre), float(low), float(high))
