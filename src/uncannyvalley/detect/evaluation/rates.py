"""Shares with their intervals, and the thresholds at which they are counted. High scores are suspicious here.

An image is flagged where its score lies above the threshold.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import beta

from uncannyvalley.detect.conformal import Calibration, rows_needed
from uncannyvalley.errors import InputError

COVERAGE = 0.95


@dataclass(frozen=True)
class Rate:
    """``count`` of ``out_of``, with an interval that covers the true rate with a chance of at least 95 %; NaN of nothing."""

    count: int
    out_of: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, out_of: int) -> "Rate":
        value = count / out_of if out_of else math.nan
        return cls(int(count), int(out_of), value, *clopper_pearson(count, out_of))

    @classmethod
    def where(cls, hits: np.ndarray) -> "Rate":
        """Of a boolean array (n,)."""
        return cls.of(int(np.count_nonzero(hits)), len(hits))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.count}/{self.out_of})"


def clopper_pearson(count: int, out_of: int, coverage: float = COVERAGE) -> tuple[float, float]:
    """Interval of a rate, exact for independent rows (Clopper and Pearson 1934): quantiles of Beta laws; (0, 1) of nothing.

    Raises InputError unless 0 ≤ count ≤ out_of.
    """
    if not 0 <= count <= out_of:
        raise InputError(f"a rate is a count of at most {out_of} rows, got {count}")
    tail = (1 - coverage) / 2
    low = float(beta.ppf(tail, count, out_of - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, out_of - count)) if count < out_of else 1.0
    return low, high


def empirical_threshold(clean: Float[np.ndarray, "n"], fpr: float) -> float:
    """The smallest of the clean scores above which at most the share ``fpr`` of them lies.

    It is read off the very rows whose rate it fixes, so it promises nothing; it compares detectors at equal rates.
    """
    if len(clean) == 0:
        raise InputError("a threshold needs clean scores, got none")
    allowed = math.floor(fpr * len(clean) + 1e-9)
    return float(np.sort(clean)[len(clean) - 1 - min(allowed, len(clean) - 1)])


def promised_threshold(calibration: Calibration, fpr: float) -> float | None:
    """The conformal threshold at another rate than the detector's own; None where the calibration rows are too few for it."""
    if calibration.clean < rows_needed(fpr):
        return None
    return Calibration(calibration.scores, fpr, calibration.contamination).threshold


@dataclass(frozen=True)
class Precision:
    """Share of the flagged that is adversarial where ``prevalence`` of all images is.

    low, high  from the far ends of both rates' intervals: wider than 95 %
    """

    prevalence: float
    value: float
    low: float
    high: float


def precision(caught: Rate, flagged_clean: Rate, prevalence: float) -> Precision:
    """π TPR/(π TPR + (1 − π) FPR); NaN where nothing at all is flagged. Raises InputError unless 0 < π < 1."""
    if not 0 < prevalence < 1:
        raise InputError(
            f"prevalence is the share of images that is adversarial, between 0 and 1; got {prevalence!r}"
        )

    def share(tpr: float, fpr: float) -> float:
        flagged = prevalence * tpr + (1 - prevalence) * fpr
        return prevalence * tpr / flagged if flagged > 0 else math.nan

    return Precision(
        prevalence,
        share(caught.value, flagged_clean.value),
        share(caught.low, flagged_clean.high),
        share(caught.high, flagged_clean.low),
    )
