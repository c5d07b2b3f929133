"""How far two recorded walks differ in their phases, each difference with its bootstrap interval.

θ = s(second) − s(first), where s is a mean (fractions, shares of log κ) or a median (steps, height, depth). Where
both walked the same images the images are drawn, each with both of its values: an image that is easy to flip
is so in both walks, and pairing takes that out of the interval. Elsewhere each walk's images are drawn apart.
Percentile intervals, seeded. Reference: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from uncannyvalley.analysis.phase_table import CHANGES, SHARES, difference
from uncannyvalley.analysis.summary import BOOTSTRAP_DRAWS, DRAWN_AT_ONCE, LEVEL, Figure, reached

FLAGS = ("flipped", "ridge", "valley", "below")
MEDIANS = ("ridge_step", "flip_step", "valley_step", "ridge_height", "depth")

NOTHING = Figure(math.nan, math.nan, math.nan)

Statistic = Callable[..., Any]


@dataclass(frozen=True)
class Difference:
    """One quantity in both walks, and second − first with its interval; NaN with fewer than two examples.

    examples: how many of each walk have the quantity (paired: how many have it in both).
    """

    first: float
    second: float
    difference: Figure
    examples: tuple[int, int]


@dataclass(frozen=True)
class Contrast:
    """``second`` − ``first``, quantity by quantity; fractions and shares are means, the others medians.

    paired    whether both walked the same images; ``reason`` says why not
    examples  pairs that count (twice the same number), or the examples of each walk: only those that were
              classified correctly before the walk, paired ones before both
    """

    first: str
    second: str
    paired: bool
    reason: str
    examples: tuple[int, int]
    differences: Mapping[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for machines."""
        return asdict(self)

    def cells(self) -> list[tuple[str, str]]:
        """The differences as text: (row title, cell)."""
        mine, theirs = self.examples
        rows = [
            ("compared", f"{mine} pairs" if self.paired else f"{theirs} against {mine}"),
            ("label flipped", f"{self._of('flipped'):+z.0%}"),
            ("ridge (×10, ÷10)", f"{self._of('ridge'):+z.0%}"),
            ("valley after flip", f"{self._of('valley'):+z.0%}"),
            ("ends below clean", f"{self._of('below'):+z.0%}"),
            ("ridge at step", f"{self._of('ridge_step'):+z.1f}"),
            ("flip at step", f"{self._of('flip_step'):+z.1f}"),
            ("valley from step", f"{self._of('valley_step'):+z.1f}"),
            ("height, nats", f"{self._of('ridge_height'):+z.2f}"),
            ("depth, nats", f"{self._of('depth'):+z.2f}"),
        ]
        titles = {"gini": "Gini", "norm": "norm", "geometry": "geometry"}
        for change in ("climb", "descent"):
            rows.append((f"{change}, nats", f"{self._of(change):+z.2f}"))
            rows += [(f"  of it {titles[one]}", f"{self._of(f'{change}_{one}'):+z.2f}") for one in SHARES]
        return rows

    def _of(self, quantity: str) -> Figure:
        found = self.differences.get(quantity)
        return found.difference if found else NOTHING


def contrast(
    first: tuple[str, Mapping[str, np.ndarray]],
    second: tuple[str, Mapping[str, np.ndarray]],
    *,
    same_images: bool,
) -> Contrast:
    """The differences between two walks, each given as its name and the columns of its phase table.

    Paired by example id where ``same_images`` and any image was classified correctly before both walks.
    Quantities that one of them lacks are left out. Steps are compared over the images that have them in
    both walks, so they do not differ because other images flipped.
    """
    mine, theirs = quantities(first[1]), quantities(second[1])
    ids = [columns["example"][columns["flip_step"] != 0] for _, columns in (first, second)]
    common, rows, others = np.intersect1d(*ids, return_indices=True)
    paired = same_images and len(common) > 0
    reason = "" if paired else "no image was correct in both" if same_images else "other images"
    found = {}
    for name in (one for one in mine if one in theirs):
        values, beside = mine[name], theirs[name]
        if paired:
            values, beside = values[rows], beside[others]
            both = ~np.isnan(values) & ~np.isnan(beside)
            values, beside = values[both], beside[both]
        statistic = np.median if name in MEDIANS else np.mean
        found[name] = compare_values(values, beside, statistic, paired=paired)
    counts = (len(common), len(common)) if paired else (len(ids[0]), len(ids[1]))
    return Contrast(first[0], second[0], paired, reason, counts, found)


def quantities(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is contrasted, for each example that was classified correctly before the walk.

    Flags as 0 and 1, steps, height and depth as they are, shares of climb, descent and change where they are finite.
    A walk whose sharpness was not recorded has ``flipped`` and ``flip_step`` alone.
    """
    correct = columns["flip_step"] != 0
    walks = {name: values[correct] for name, values in columns.items()}
    found = {name: flag.astype(float) for name, flag in reached(walks).items()}
    found |= {name: walks[name] for name in MEDIANS if name in walks}
    for change in CHANGES:
        for name in (change, *(f"{change}_{share}" for share in SHARES)):
            if name in walks:
                found[name] = np.where(np.isfinite(walks[name]), walks[name], np.nan)
    return found


def compare_values(
    first: np.ndarray, second: np.ndarray, statistic: Statistic, *, paired: bool, level: float = LEVEL
) -> Difference:
    """``statistic`` of both samples, NaN left out, and second − first with its percentile interval (seeded).

    ``paired`` draws positions, which both samples share; they are then equally long and without NaN.
    """
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    counts = (len(first), len(second))
    mine, theirs = (float(statistic(values)) if len(values) else math.nan for values in (first, second))
    centre = float(difference(np.asarray(theirs), np.asarray(mine)))
    if min(counts) < 2:
        return Difference(mine, theirs, NOTHING, counts)
    if (first == first[0]).all() and (second == second[0]).all():
        return Difference(mine, theirs, Figure(centre, centre, centre), counts)
    low, high = _percentiles(first, second, statistic, paired, level)
    return Difference(mine, theirs, Figure(centre, low, high), counts)


def _percentiles(
    first: np.ndarray, second: np.ndarray, statistic: Statistic, paired: bool, level: float
) -> tuple[float, float]:
    from scipy.stats import bootstrap

    def apart(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
        return difference(statistic(other, axis=axis), statistic(one, axis=axis))

    with np.errstate(invalid="ignore"):  # log κ may be −inf, and so may its changes
        drawn = bootstrap(
            (first, second), apart, n_resamples=BOOTSTRAP_DRAWS, confidence_level=level, method="percentile", paired=paired,
            vectorized=True, batch=max(1, DRAWN_AT_ONCE // max(len(first), len(second))), rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return float(drawn.low), float(drawn.high)
