"""Split-conformal calibration: a false-positive rate that holds in finite samples, whatever the score.

Of n clean calibration scores and one new clean score, exchangeable, every rank of the new one is equally likely. So
p = (1 + #{calibration scores ≥ score})/(n + 1) is at most α with probability at most α
(Vovk et al. 2005; Bates et al. 2023, arXiv 2104.08279). High scores are suspicious here.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, betabinom

from uncannyvalley.errors import InputError


def check_fpr(fpr: object) -> float:
    """``fpr`` as a rate strictly between 0 and 1; InputError otherwise."""
    if isinstance(fpr, bool) or not isinstance(fpr, (int, float, np.floating)) or not 0 < fpr < 1:
        raise InputError(f"fpr must be a false-positive rate between 0 and 1, such as 0.05; got {fpr!r}")
    return float(fpr)


def rows_needed(fpr: float) -> int:
    """The fewest calibration rows with which anything can be flagged at ``fpr``: 1/(n + 1) ≤ fpr."""
    needed = math.ceil(1 / fpr - 1e-9) - 1
    return needed if 1 / (needed + 1) <= fpr else needed + 1


@dataclass(frozen=True)
class Calibration:
    """Sorted clean scores, and the rate that was promised.

    scores         ascending; high = suspicious
    fpr            the promised rate
    contamination  largest number of ``scores`` that may not be clean
    """

    scores: np.ndarray
    fpr: float
    contamination: int = 0

    @classmethod
    def of(cls, scores: np.ndarray, fpr: float, contamination: float = 0.0) -> "Calibration":
        """From the scores of calibration rows, of which up to the share ``contamination`` may be adversarial.

        Raises InputError where there are too few, with the number needed.
        """
        if not isinstance(contamination, (int, float, np.number)) or not 0 <= contamination < 1:
            raise InputError(
                f"contamination must be a share of at least 0 and below 1, got {contamination!r}"
            )
        fpr, scores = check_fpr(fpr), np.sort(np.asarray(scores, dtype=np.float64), axis=None)
        if np.isnan(scores).any():
            raise InputError(
                f"{int(np.isnan(scores).sum())} of {len(scores)} calibration scores are NaN; remove those rows"
            )
        bad = math.floor(contamination * len(scores) + 1e-9)
        needed = math.floor((rows_needed(fpr) - 1) / (1 - contamination) + 1e-9) + 1
        if len(scores) - bad < rows_needed(fpr):
            raise InputError(
                f"fpr={fpr:g} needs at least {needed} clean calibration images, got {len(scores)}; give more, or "
                f"promise a rate of at least {1 / (len(scores) - bad + 1):.3g}"
            )
        return cls(scores, fpr, bad)

    @property
    def clean(self) -> int:
        """How many of the scores are clean at least."""
        return len(self.scores) - self.contamination

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """(1 + #{calibration ≥ score})/(clean + 1), at most 1.

        Valid with contamination too: the clean rows alone would count no more above, of at least ``clean`` rows.
        """
        above = len(self.scores) - np.searchsorted(self.scores, scores, side="left")
        return np.minimum(1.0, (1 + above) / (self.clean + 1))

    @property
    def flagged(self) -> int:
        """l, the largest rank from above that is flagged: l/(clean + 1) ≤ fpr."""
        rank = math.floor(self.fpr * (self.clean + 1) + 1e-9)
        return rank if rank / (self.clean + 1) <= self.fpr else rank - 1

    @property
    def threshold(self) -> float:
        """The largest score that is not flagged: p > fpr exactly for scores up to it."""
        return float(self.scores[len(self.scores) - self.flagged])

    def interval(self, coverage: float = 0.95) -> tuple[float, float]:
        """Where the rate of *this* threshold lies over draws of the calibration rows: Beta(l, n + 1 − l), l = ``flagged``.

        Exact for continuous scores without contamination; with ties or contamination the rate lies lower.
        """
        law = beta(self.flagged, self.clean + 1 - self.flagged)
        return float(law.ppf((1 - coverage) / 2)), float(law.ppf((1 + coverage) / 2))

    def expected_flags(self, images: int, coverage: float = 0.95) -> tuple[int, int]:
        """How many of so many new clean images are flagged: a Beta-binomial interval."""
        law = betabinom(images, self.flagged, self.clean + 1 - self.flagged)
        return int(law.ppf((1 - coverage) / 2)), int(law.ppf((1 + coverage) / 2))
