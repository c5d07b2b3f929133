"""Matched contrasts: how well a score orders two groups of images where confidence and norm cannot tell them apart.

A pushed image is compared only with images of the other group whose margin z_t − max_{s≠t} z_s and log |φ| are equal to its own:
in the same cell of quantile bins, or its nearest neighbour. What remains of a detector's AUROC there is its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from uncannyvalley.detect.evaluation.roc import (
    NOTHING,
    Interval,
    percentiles,
    perfect,
    resampled_pairs,
    resamples,
    share_of_pairs,
    wins,
)

BINS = 10
"""Of each of the two numbers: quantiles of both groups together, as if these were of equal size."""

CALIPER = 0.25
"""Largest distance of neighbours, in standard deviations of each number over the other group."""

MOST_ROWS = 2000
"""Of a group in a contrast; what is more is left out, every k-th row kept."""

METHODS = ("all pairs", "bins", "neighbours")


@dataclass(frozen=True)
class Group:
    """n images of a kind.

    scores   detector → (n,), high = suspicious
    matched  (n, 2): margin and log |φ|
    images   (n,): which image each row comes from
    """

    scores: Mapping[str, Float[np.ndarray, "n"]]
    matched: Float[np.ndarray, "n 2"]
    images: Int[np.ndarray, "n"]

    def rows(self, which: Bool[np.ndarray, "n"]) -> "Group":
        """Some of them."""
        chosen = np.flatnonzero(which)
        chosen = chosen[:: max(1, math.ceil(len(chosen) / MOST_ROWS))]
        scores = {name: one[chosen] for name, one in self.scores.items()}
        return Group(scores, self.matched[chosen], self.images[chosen])


@dataclass(frozen=True)
class Contrast:
    """One group against another.

    against  the other group
    method   "all pairs", "bins" or "neighbours"
    pairs    how many pairs were compared
    covered  share of the first group's images that had a partner
    auroc    share of the pairs in which the first group's image is the more suspicious
    gains    other detector → AUROC − its AUROC on the same pairs, images resampled together
    residual largest |AUROC − ½| of the matched numbers themselves on these pairs: 0 where the partners are equal
    """

    against: str
    method: str
    pairs: int
    covered: float
    auroc: Interval
    gains: Mapping[str, Interval]
    residual: float


def contrast(
    first: Group, second: Group, detector: str, others: list[str], *, against: str, method: str, seed: int = 0
) -> Contrast:
    """``detector``'s AUROC for ``first`` against ``second``, and its gain over ``others``, with bootstrap intervals."""
    pairs = _PAIRINGS[method](first.matched, second.matched)
    covered = float(pairs.any(axis=1).mean()) if len(pairs) else math.nan
    if not pairs.any():
        return Contrast(against, method, 0, covered, NOTHING, dict.fromkeys(others, NOTHING), math.nan)
    weight = pairs.astype(np.float32)
    images, place = np.unique(np.concatenate([first.images, second.images]), return_inverse=True)
    drawn = resamples(len(images), seed)
    of_first, of_second = place[: len(first.images)], place[len(first.images) :]
    total = resampled_pairs(weight, drawn, of_first, of_second)

    def found(name: str) -> tuple[float, np.ndarray]:
        won = wins(first.scores[name], second.scores[name])
        good = resampled_pairs(won * weight, drawn, of_first, of_second)
        return _share(won, pairs), share_of_pairs(good, total)

    value, sampled = found(detector)
    few = int(min(pairs.any(axis=1).sum(), pairs.any(axis=0).sum()))
    area = perfect(value, few) if value in (0.0, 1.0) else percentiles(value, sampled)
    gains = {}
    for other in others:
        its_value, its_samples = found(other)
        gains[other] = percentiles(value - its_value, sampled - its_samples)
    numbers = zip(first.matched.T, second.matched.T, strict=True)
    residual = max(abs(_share(wins(one, other), pairs) - 0.5) for one, other in numbers)
    return Contrast(against, method, int(pairs.sum()), covered, area, gains, residual)


def _share(won: Float[np.ndarray, "m n"], pairs: Bool[np.ndarray, "m n"]) -> float:
    """Of the pairs that are won."""
    return float(won[pairs].mean(dtype=np.float64))


def all_pairs(first: Float[np.ndarray, "m c"], second: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, "m n"]:
    """Every image of the one with every image of the other."""
    return np.ones((len(first), len(second)), dtype=bool)


def same_bin(first: Float[np.ndarray, "m c"], second: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, "m n"]:
    """Pairs in the same quantile bin of every number."""
    same = all_pairs(first, second)
    if not same.size:
        return same
    weights = np.concatenate([np.full(len(first), 1 / len(first)), np.full(len(second), 1 / len(second))])
    for one, other in zip(first.T, second.T, strict=True):
        edges = _quantiles(np.concatenate([one, other]), weights)
        same &= np.searchsorted(edges, one)[:, None] == np.searchsorted(edges, other)[None]
    return same


def nearest(first: Float[np.ndarray, "m c"], second: Float[np.ndarray, "n c"]) -> Bool[np.ndarray, "m n"]:
    """Each image of the first group with its nearest of the second, where that is no further than ``CALIPER`` in any number."""
    matched = np.zeros((len(first), len(second)), dtype=bool)
    if not matched.size:
        return matched
    spread = second.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    away, partner = cKDTree(second / spread).query(first / spread, p=np.inf)
    close = away <= CALIPER
    matched[np.flatnonzero(close), partner[close]] = True
    return matched


_PAIRINGS = dict(zip(METHODS, (all_pairs, same_bin, nearest), strict=True))


def _quantiles(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> Float[np.ndarray, "e"]:
    """Inner edges of ``BINS`` bins of equal weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.searchsorted(reached, np.arange(1, BINS) / BINS).clip(max=len(values) - 1)]
