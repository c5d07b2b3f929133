"""The detector on arrays of columns: one-class, two-sided, in scikit-learn's manner."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from uncannyvalley.checks import check_labels
from uncannyvalley.detect.conformal import Calibration, check_fpr
from uncannyvalley.detect.curves import Curves, normal_scores
from uncannyvalley.detect.questions import Answers, Question
from uncannyvalley.errors import InputError

CLASS_PRIOR = 500
"""Rows of a class at which its own location counts half: fewer rows, and all classes share one."""

FURTHEST = 40.0
"""Bound of a normal score: what lies further out is as strange as can be."""


class SharpnessDetector(OutlierMixin, BaseEstimator):
    """How surprising rows of columns are, by clean rows alone: no attack is seen.

    score = −Σ_q weight_q · surprise_q, low = suspicious; surprise_q is −log of the share of the clean rows fitted whose answer
    to the question q lies further out (Fisher's sum of log p-values). Columns pass through their normal scores first.

    Parameters
    ----------
    questions  what to ask; None: one two-sided question about all columns jointly
    columns    names of X's columns, which the questions use; None: "0", "1", …
    fpr        share of clean rows that may be called −1

    ``fit`` sets the threshold from the rows fitted, which promises nothing; ``calibrate`` on rows that were not fitted does:
    of new clean rows at most ``fpr`` are called −1, on average over the draw of the calibration rows (split conformal).

    Example
    -------
    >>> rows = np.random.default_rng(0).normal(size=(600, 3))
    >>> detector = SharpnessDetector(fpr=0.1).fit(rows[:300]).calibrate(rows[300:])
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]).tolist()
    [1, -1]
    """

    def __init__(
        self,
        questions: Sequence[Question] | None = None,
        columns: Sequence[str] | None = None,
        fpr: float = 0.05,
    ) -> None:
        self.questions = questions
        self.columns = columns
        self.fpr = fpr

    def fit(self, X: object, y: object = None, *, classes: object = None) -> "SharpnessDetector":
        """From clean rows X (n, p). ``classes`` (n,): the predicted class of each, so that columns are compared within it."""
        check_fpr(self.fpr)
        rows = torch.tensor(validate_data(self, X, dtype=np.float64, ensure_min_samples=2))
        names = [str(i) for i in range(rows.shape[1])] if self.columns is None else list(self.columns)
        if isinstance(self.columns, str) or len(names) != rows.shape[1] or len(set(names)) != len(names):
            raise InputError(f"columns must name the {rows.shape[1]} columns of X, each once; got {names}")
        questions = self.questions or [Question("all columns", dict.fromkeys(names, 1.0))]
        if not all(isinstance(one, Question) for one in questions):
            raise InputError(f"questions must be a list of Question, got {questions!r}")
        self.curves_: Curves = normal_scores(rows.numpy())
        self.locations_ = _locations(self.curves_(rows), classes)
        scores = self._normal_scores(rows, classes)
        self.answers_ = [Answers.fit(one, names, scores) for one in questions]
        self.calibration_: Calibration | None = None
        self.offset_ = float(np.quantile(-self.nats(rows, classes).sum(dim=1).numpy(), self.fpr))
        return self

    def calibrate(
        self, X: object, *, classes: object = None, contamination: float = 0.0
    ) -> "SharpnessDetector":
        """Fix the threshold on rows that were not fitted, of which at most the share ``contamination`` is not clean.

        Raises InputError for fewer than 1/fpr − 1 clean ones.
        """
        self.calibration_ = Calibration.of(-self.score_samples(X, classes), self.fpr, contamination)
        self.offset_ = -self.calibration_.threshold
        return self

    def score_samples(self, X: object, classes: object = None) -> np.ndarray:
        """(n,) float64; low = suspicious."""
        return -self.surprises(X, classes).sum(axis=1)

    def surprises(self, X: object, classes: object = None) -> np.ndarray:
        """(n, questions): nats that each question adds."""
        check_is_fitted(self)
        rows = torch.tensor(validate_data(self, X, dtype=np.float64, reset=False))
        return self.nats(rows, classes).numpy()

    def nats(self, rows: Float[Tensor, "n p"], classes: object = None) -> Float[Tensor, "n q"]:
        """The same of a tensor, differentiable."""
        scores = self._normal_scores(rows, classes)
        return torch.stack([one.question.weight * one.nats(scores) for one in self.answers_], dim=1)

    def decision_function(self, X: object, classes: object = None) -> np.ndarray:
        """Score − threshold: negative = −1."""
        return self.score_samples(X, classes) - self.offset_

    def predict(self, X: object, classes: object = None) -> np.ndarray:
        """+1 for clean, −1 for suspicious."""
        return np.where(self.decision_function(X, classes) < 0, -1, 1)

    def p_values(self, X: object, classes: object = None) -> np.ndarray:
        """Share of clean rows at least as suspicious, counting the row itself: valid for a clean row. Needs ``calibrate``."""
        calibration: Calibration | None = getattr(self, "calibration_", None)
        if calibration is None:
            raise InputError("p-values need clean rows that were not fitted: call calibrate(X) first")
        return calibration.p_values(-self.score_samples(X, classes))

    def _normal_scores(self, rows: Float[Tensor, "n p"], classes: object) -> Float[Tensor, "n p"]:
        scores = self.curves_(rows).clamp(-FURTHEST, FURTHEST)
        if (self.locations_ is None) != (classes is None):
            raise InputError(
                "classes must be given to all of fit, calibrate and score, or to none: rows are compared within them"
            )
        if self.locations_ is not None:
            scores = scores - _of_class(self.locations_.to(scores), check_classes(classes, len(rows)))
        return scores


def check_classes(classes: object, count: int) -> Int[Tensor, "n"]:
    """Predicted classes as int64 (count,) from 0; InputError otherwise."""
    return check_labels(
        classes if isinstance(classes, Tensor) else np.asarray(classes), count, name="classes"
    )


def _locations(scores: Float[Tensor, "n p"], classes: object) -> Float[Tensor, "k p"] | None:
    """Median normal scores of each class, shrunk to 0 by n/(n + CLASS_PRIOR); None without classes."""
    if classes is None:
        return None
    labels = check_classes(classes, len(scores))
    found = torch.zeros(int(labels.max()) + 1, scores.shape[1], dtype=torch.float64)
    for which in labels.unique().tolist():
        rows = scores[labels == which]
        found[which] = rows.median(dim=0).values * len(rows) / (len(rows) + CLASS_PRIOR)
    return found


def _of_class(locations: Float[Tensor, "k p"], classes: Int[Tensor, "n"]) -> Float[Tensor, "n p"]:
    """The location of each row's class; 0 for a class that no fitted row had."""
    known = classes < len(locations)
    return torch.where(known[:, None], locations[torch.where(known, classes, 0)], 0.0)
