"""The detector that has seen attacks: logistic regression on a one-class detector's columns, its threshold still from clean rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from uncannyvalley.detect.conformal import Calibration, check_fpr, rows_needed
from uncannyvalley.detect.curves import normal_scores
from uncannyvalley.detect.evaluation.progress import Advance
from uncannyvalley.detect.evaluation.rates import Rate
from uncannyvalley.errors import InputError

FURTHEST = 6.0
"""Bound of a normal score: a regression would else follow the few rows furthest out."""

FEWEST_PUSHED = 10
"""Successful images of the attacks seen below which nothing is learned."""

PARTS = (0.4, 0.3, 0.3)
"""Shares of the images that the seen/unseen matrix learns from, takes its threshold from, and is tested on."""

ALL_OTHERS = "all others"


class SupervisedDetector(BaseEstimator):
    """Logistic regression on normal scores of columns and their squares, so that both tails can count.

    score = −(log-odds of "pushed"), low = suspicious, as ``SharpnessDetector``'s; its threshold is conformal on clean rows.

    Parameters
    ----------
    fpr       share of clean rows that may be called −1
    strength  of the penalty on the weights: 1/C

    Example
    -------
    >>> draw = np.random.default_rng(0)
    >>> clean, pushed = draw.normal(size=(400, 2)), draw.normal(size=(200, 2)) + 3
    >>> rows, y = np.r_[clean[:200], pushed], np.r_[np.ones(200), -np.ones(200)]
    >>> SupervisedDetector().fit(rows, y).calibrate(clean[200:]).predict([[0.0, 0.0], [4.0, 4.0]]).tolist()
    [1, -1]
    """

    def __init__(self, fpr: float = 0.05, strength: float = 10.0) -> None:
        self.fpr = fpr
        self.strength = strength

    def fit(self, X: object, y: object, *, classes: object = None) -> "SupervisedDetector":
        """From rows X (n, p) and y (n,): +1 clean, −1 pushed. ``classes`` is taken for the sake of the other detector, and ignored.

        Raises InputError unless y holds both.
        """
        check_fpr(self.fpr)
        rows, labels = _rows(X), np.asarray(y)
        if labels.shape != (len(rows),) or set(np.unique(labels).tolist()) != {-1, 1}:
            raise InputError(
                "y must hold +1 for each clean row and −1 for each pushed row, and both must occur; "
                f"got shape {labels.shape} with {np.unique(labels).tolist()[:5]}"
            )
        self.curves_ = normal_scores(rows[labels == 1])
        self.regression_ = LogisticRegression(C=1 / self.strength, class_weight="balanced", max_iter=2000)
        self.regression_.fit(self._inputs(rows), labels == -1)
        self.offset_ = float(np.quantile(self.score_samples(rows[labels == 1]), self.fpr))
        self.calibration_: Calibration | None = None
        return self

    def calibrate(
        self, X: object, *, classes: object = None, contamination: float = 0.0
    ) -> "SupervisedDetector":
        """Fix the threshold on clean rows that were not fitted; InputError for too few of them."""
        self.calibration_ = Calibration.of(-self.score_samples(X), self.fpr, contamination)
        self.offset_ = -self.calibration_.threshold
        return self

    def score_samples(self, X: object, classes: object = None) -> np.ndarray:
        """(n,) float64; low = suspicious."""
        check_is_fitted(self)
        return -self.regression_.decision_function(self._inputs(_rows(X)))

    def predict(self, X: object, classes: object = None) -> np.ndarray:
        """+1 for clean, −1 for suspicious."""
        return np.where(self.score_samples(X) < self.offset_, -1, 1)

    def p_values(self, X: object, classes: object = None) -> np.ndarray:
        """Share of clean rows at least as suspicious. Needs ``calibrate``."""
        if getattr(self, "calibration_", None) is None:
            raise InputError("p-values need clean rows that were not fitted: call calibrate(X) first")
        assert self.calibration_ is not None
        return self.calibration_.p_values(-self.score_samples(X))

    def _inputs(self, rows: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n q"]:
        scores = self.curves_(torch.tensor(rows)).clamp(-FURTHEST, FURTHEST).numpy()
        return np.concatenate([scores, np.square(scores)], axis=1)


def _rows(X: object) -> Float[np.ndarray, "n p"]:
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InputError(f"X must be rows of finite columns (n, p), got shape {rows.shape}")
    return rows


@dataclass(frozen=True)
class SeenUnseen:
    """Share of each tested attack's images that a supervised detector flags, and what it flags of clean ones.

    rows     what was seen: an attack alone, or ALL_OTHERS but the tested one
    columns  the attack tested
    caught   rows by columns
    clean    rows by columns: false positives of that detector on test images
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    caught: tuple[tuple[Rate, ...], ...]
    clean: tuple[tuple[Rate, ...], ...]


def seen_unseen(
    clean: Float[np.ndarray, "n p"],
    right: Bool[np.ndarray, "n"],
    attacks: Mapping[str, tuple[Float[np.ndarray, "n p"], Bool[np.ndarray, "n"]]],
    *,
    fpr: float = 0.05,
    seed: int = 0,
    advance: Advance = lambda done: None,
) -> SeenUnseen | None:
    """Learn from ``PARTS[0]`` of the images, fix the threshold on ``PARTS[1]``, test on the rest; no image is in two of them.

    attacks  name → columns of the attacked images, row by row those of ``clean``, and which rows count
    advance  called with the number of images after each attack that was tested unseen

    Attacks with fewer than ``FEWEST_PUSHED`` counted images to learn from are tested only. None where the clean images are
    too few to calibrate on, or no attack can be learned.
    """
    learn, hold, test = _parts(len(clean), seed)
    if (right & hold).sum() < rows_needed(fpr) or not (right & learn).any() or not (right & test).any():
        return None
    seen = [name for name, (_, counts) in attacks.items() if (counts & learn).sum() >= FEWEST_PUSHED]
    if not seen:
        return None

    def fitted(names: list[str]) -> SupervisedDetector | None:
        if not names:
            return None
        pushed = [attacks[name][0][attacks[name][1] & learn] for name in names]
        rows = np.concatenate([clean[right & learn], *pushed])
        y = np.concatenate([np.ones((right & learn).sum()), -np.ones(sum(map(len, pushed)))])
        return SupervisedDetector(fpr).fit(rows, y).calibrate(clean[right & hold])

    def tested(detector: SupervisedDetector | None, name: str) -> tuple[Rate, Rate]:
        if detector is None:
            return Rate.of(0, 0), Rate.of(0, 0)
        rows, counts = attacks[name]
        flagged = detector.predict(np.concatenate([rows[counts & test], clean[right & test]])) < 0
        pushed = int((counts & test).sum())
        return Rate.where(flagged[:pushed]), Rate.where(flagged[pushed:])

    unseen = []
    for name in attacks:
        unseen.append(tested(fitted([one for one in seen if one != name]), name))
        advance(len(clean))
    table = [unseen]
    for name in seen:
        detector = fitted([name])
        table.append([tested(detector, other) for other in attacks])
    caught, false = (tuple(tuple(cell[i] for cell in row) for row in table) for i in (0, 1))
    return SeenUnseen((ALL_OTHERS, *seen), tuple(attacks), caught, false)


def _parts(images: int, seed: int) -> tuple[np.ndarray, ...]:
    """Which images are in each of the three parts."""
    place = np.random.default_rng(seed).permutation(images) / images
    first, second = PARTS[0], PARTS[0] + PARTS[1]
    return place < first, (place >= first) & (place < second), place >= second
