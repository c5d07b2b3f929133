"""How well a score orders two groups of images: the area under the ROC curve with its interval, and the curve on a log axis.

AUROC = P(pushed > clean) + ½ P(pushed = clean). High scores are suspicious here.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from uncannyvalley.detect.evaluation.rates import COVERAGE, clopper_pearson

SMALLEST_FPR = 1e-3
POINTS = 61
"""Of a curve, evenly spaced in log FPR: 20 for each factor of ten."""

RESAMPLES = 500

SPARSE = 0.1
"""Share of all pairs below which they are summed one by one."""


@dataclass(frozen=True)
class Interval:
    """A number and where it lies with a chance of 95 %; NaN where there is nothing to compare."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


NOTHING = Interval(math.nan, math.nan, math.nan)


def auroc(clean: Float[np.ndarray, "n"], pushed: Float[np.ndarray, "m"]) -> Interval:
    """With DeLong's variance (DeLong et al. 1988), its interval formed in log-odds so that it stays within 0 and 1.

    The two groups count as independent; where they come from the same images the interval is too wide rather than too
    narrow, as scores of the same image go together. Where all pairs are ordered alike the variance says nothing: then the
    interval is that of as many successes in a row as the smaller group has images.
    """
    n, m = len(clean), len(pushed)
    if not n or not m:
        return NOTHING
    among_all = rankdata(np.concatenate([pushed, clean]))
    above_clean = (among_all[:m] - rankdata(pushed)) / n  # of each pushed image: share of the clean below it
    below_pushed = 1 - (among_all[m:] - rankdata(clean)) / m
    value = float(above_clean.mean())
    return _interval(value, _variance(above_clean) + _variance(below_pushed), min(n, m))


def _variance(components: Float[np.ndarray, "n"]) -> float:
    """Of their mean; that of one alone is at most ¼."""
    return float(components.var(ddof=1) / len(components)) if len(components) > 1 else 0.25


def _interval(value: float, variance: float, images: int) -> Interval:
    if value in (0.0, 1.0):
        return perfect(value, images)
    reach = norm.ppf((1 + COVERAGE) / 2) * math.sqrt(variance) / (value * (1 - value))
    return Interval(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))


def perfect(value: float, images: int) -> Interval:
    """Interval of an AUROC of 0 or 1 that so many images showed."""
    low, high = clopper_pearson(images if value == 1.0 else 0, images)
    return Interval(value, low, high)


def log_roc(
    clean: Float[np.ndarray, "n"], pushed: Float[np.ndarray, "m"]
) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "p"]]:
    """False- and true-positive rates of thresholds at the clean scores: FPR from ``SMALLEST_FPR`` to 1, evenly in its logarithm.

    Each point is the largest true-positive rate at no more than that false-positive rate; 0 of no images.
    """
    wanted = np.geomspace(SMALLEST_FPR, 1.0, POINTS)
    if not len(clean) or not len(pushed):
        return wanted, np.zeros(POINTS)
    falling = np.sort(clean)[::-1]
    allowed = np.floor(wanted * len(clean) + 1e-9).astype(int)
    thresholds = np.append(falling, -np.inf)[allowed]
    caught = len(pushed) - np.searchsorted(np.sort(pushed), thresholds, side="right")
    return wanted, caught / len(pushed)


def wins(pushed: Float[np.ndarray, "m"], clean: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m n"]:
    """1 where the pushed image scores higher, ½ where both score alike."""
    above = pushed[:, None] > clean[None]
    return above.astype(np.float32) + np.float32(0.5) * (pushed[:, None] == clean[None])


def resamples(images: int, seed: int, count: int = RESAMPLES) -> Float[np.ndarray, "b k"]:
    """How often each image is drawn in each of ``count`` samples of all images with replacement."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float32)


def resampled_pairs(
    pairs: Float[np.ndarray, "m n"],
    drawn: Float[np.ndarray, "b k"],
    of_pushed: Int[np.ndarray, "m"],
    of_clean: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "b"]:
    """The sum of the weights ``pairs`` in each sample of images; ``of_…`` say which image a row belongs to.

    Rows of one image are drawn together, and so are all detectors' scores of it: differences are paired. An AUROC is the
    share of the pairs that are won: the sum of ``won * pairs`` over that of ``pairs``.
    """
    first, second = drawn[:, of_pushed], drawn[:, of_clean]
    if np.count_nonzero(pairs) < SPARSE * pairs.size:
        return ((csr_array(pairs).T @ first.T).T * second).sum(axis=1, dtype=np.float64)
    return ((first @ pairs) * second).sum(axis=1, dtype=np.float64)


def share_of_pairs(good: Float[np.ndarray, "b"], total: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
    """``good`` over ``total``; NaN for samples without pairs."""
    return np.where(total > 0, good / np.where(total > 0, total, 1), np.nan)


def percentiles(value: float, sampled: Float[np.ndarray, "b"]) -> Interval:
    """The value with the middle 95 % of its resamples."""
    known = sampled[np.isfinite(sampled)]
    if not len(known) or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(value, float(low), float(high))
