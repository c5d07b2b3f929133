"""A fitted SharpnessDetector as one nn.Module: columns → suspicion, p-value and flag, in few traceable operations.

The numbers are those of ``SharpnessDetector``; only their order of evaluation differs. Curves become tables of lines, all
distances of all questions two matrix products, and a p-value a place in a table.
"""

import numpy as np
import torch
from torch import Tensor, nn

from uncannyvalley.detect.conformal import Calibration
from uncannyvalley.detect.curves import LARGEST, STEEPEST, Curves
from uncannyvalley.detect.questions import BEYOND, Answers
from uncannyvalley.detect.sharpness_detector import FURTHEST, SharpnessDetector

ROUNDING = 1e-6
"""Relative: scores that differ by less count as equal to a calibration score, so that rounding never flags."""


SLACK = 1e-12
"""Relative: how far before a knot its piece begins. Clean rows that tie make a jump there, and rounding must not decide the side."""


class Lines(nn.Module):
    """``Curves`` as tables: the piece that x lies in is counted, and its line intercept + slope · x evaluated.

    ``bound``: the values go no further, which is one more piece at either end.
    """

    at: Tensor
    intercepts: Tensor
    slopes: Tensor

    def __init__(self, curves: Curves, bound: float | None = None) -> None:
        super().__init__()
        at, to = curves.at, curves.to
        run = at.diff(dim=1)
        inside = (to.diff(dim=1) / torch.where(run > 0, run, 1.0)).clamp(max=STEEPEST)
        slopes = torch.cat([curves.before[:, None], inside, curves.after[:, None]], dim=1)
        x0, y0 = torch.cat([at[:, :1], at], dim=1), torch.cat([to[:, :1], to], dim=1)
        intercepts = y0 - x0 * slopes
        if bound is not None:
            ends = [
                at[:, end] + (side * bound - to[:, end]) / slopes[:, end] for end, side in ((0, -1), (-1, 1))
            ]
            at = torch.cat([ends[0][:, None], at, ends[1][:, None]], dim=1)
            level = torch.full_like(slopes[:, :1], bound)
            intercepts = torch.cat([-level, intercepts, level], dim=1)
            slopes = nn.functional.pad(slopes, (1, 1))
        self.register_buffer("at", (at - SLACK * (1 + at.abs())).contiguous())
        self.register_buffer("intercepts", intercepts.T.contiguous())
        self.register_buffer("slopes", slopes.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(n, c) → (n, c), each column by its own function."""
        if torch.compiler.is_compiling():  # also in an export: no other runtime knows a binary search
            pieces = (x >= self.at.T[:, None]).sum(dim=0)
        else:
            pieces = torch.searchsorted(self.at, x.T.contiguous(), right=True).T
        return torch.addcmul(self.intercepts.gather(0, pieces), x, self.slopes.gather(0, pieces))


class Distances(nn.Module):
    """Normal scores (n, p) and predicted classes (n,) → distance of each question (n, q).

    A distance is a sum of squares, or a sum less what others explain of it, of scores less the ``locations`` (k, p) of the class.
    """

    roots: Tensor
    centres: Tensor
    linear: Tensor
    squares: Tensor
    constants: Tensor
    belongs: Tensor
    locations: Tensor

    def __init__(self, answers: list[Answers], locations: Tensor) -> None:
        super().__init__()
        count, columns = len(answers), locations.shape[1]
        linear, squares = (torch.zeros(columns, count, dtype=torch.float64) for _ in range(2))
        constant = torch.zeros(count, dtype=torch.float64)
        roots, middles, belongs = [linear[:, :0]], [constant[:0]], []
        for i, one in enumerate(answers):
            if one.question.side == "both":
                root = torch.zeros(columns, len(one.asked), dtype=torch.float64)
                root[one.asked] = torch.linalg.cholesky(one.precision)
                roots.append(root)
                middles.append(one.centre @ root[one.asked])
                belongs += [i] * len(one.asked)
            else:
                _one_sided(one, i, linear, squares, constant)
        self.has_joint, self.has_sums = bool(belongs), len(set(belongs)) < count
        self.has_squares = bool(squares.any())  # else the locations go into the constants
        wide, moved = torch.cat(roots, dim=1), torch.zeros_like(locations) if self.has_squares else locations
        self.register_buffer("roots", wide)
        self.register_buffer("centres", -torch.cat(middles) - moved @ wide)
        self.register_buffer("linear", linear)
        self.register_buffer("squares", squares)
        self.register_buffer("constants", constant - moved @ linear)
        self.register_buffer("belongs", torch.eye(count, dtype=torch.float64)[belongs])
        self.register_buffer("locations", locations)

    def forward(self, scores: Tensor, predicted: Tensor) -> Tensor:
        found: list[Tensor] = []
        of_class = nn.functional.embedding
        if self.has_squares:
            scores = scores - of_class(predicted, self.locations)
        if self.has_joint:
            apart = torch.addmm(of_class(predicted, self.centres), scores, self.roots)
            found.append(apart.square() @ self.belongs)
        if self.has_sums:
            found.append(torch.addmm(of_class(predicted, self.constants), scores, self.linear))
        if self.has_squares:
            found.append(scores.square() @ self.squares)
        return sum(found[1:], found[0])


def _one_sided(answers: Answers, i: int, linear: Tensor, squares: Tensor, constant: Tensor) -> None:
    """Write the weights of ± (sum − explained · (1, g, g²)) into column i."""
    sign = -1.0 if answers.question.side == "low" else 1.0
    weights = answers.question.columns.values()
    for column, weight in zip(answers.asked, weights, strict=True):
        linear[column, i] += sign * weight
    explained = (-sign * answers.explained).tolist()
    constant[i] = explained[0]
    count = len(answers.given)
    for place, column in enumerate(answers.given):
        linear[column, i] += explained[1 + place]
        squares[column, i] += explained[1 + count + place]


class Scoring(nn.Module):
    """Columns (n, p) in float64 and predicted classes (n,) → p-value and flag, each (n,).

    A p-value counts the calibration scores that are at least as high. Where one question is the whole score, which rises with its
    distance, distances are compared in place of scores, and the score need not be known.
    """

    weights: Tensor
    limits: Tensor
    calibration: Tensor
    p_of_below: Tensor
    p_of_above: Tensor

    def __init__(self, estimator: SharpnessDetector, calibration: Calibration, classes: int) -> None:
        super().__init__()
        self.normal_scores = Lines(estimator.curves_, FURTHEST)
        columns = len(estimator.curves_.at)
        self.distances = Distances(estimator.answers_, _for_all(classes, columns, estimator.locations_))
        tails = [one.tail for one in estimator.answers_]
        self.tails = Lines(_stacked(tails))
        questions = [one.question for one in estimator.answers_]
        weights, limits = [one.weight for one in questions], [one.limit for one in questions]
        self.is_plain = weights == [1.0] and limits == [None]
        self.has_limits = any(limits)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64)[:, None])
        bounds = [LARGEST if one is None else one for one in limits]
        self.register_buffer("limits", torch.tensor(bounds, dtype=torch.float64))
        scores = calibration.scores + ROUNDING * (1 + np.abs(calibration.scores))
        compared = _furthest(tails[0], scores) if self.is_plain else scores
        self.register_buffer("calibration", torch.tensor(compared))
        above = np.arange(len(scores) + 1)
        p_of_above = torch.tensor(np.minimum(1.0, (1 + above) / (calibration.clean + 1)))
        self.register_buffer("p_of_above", p_of_above)
        self.register_buffer("p_of_below", p_of_above.flip(0))
        self.most_above = calibration.flagged - 1

    def forward(self, columns: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return self.judged(self.apart(columns, predicted))

    def judged(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """P-value and flag of what ``apart`` found; NaN counts as above all calibration scores."""
        found = distances if self.is_plain else self.suspicion(distances)
        if torch.compiler.is_compiling():
            above = (found <= self.calibration).sum(dim=1)
            return self.p_of_above.gather(0, above), above <= self.most_above
        below = torch.searchsorted(self.calibration, found).squeeze(1)
        return self.p_of_below.gather(0, below), below >= len(self.calibration) - self.most_above

    def apart(self, columns: Tensor, predicted: Tensor) -> Tensor:
        """(n, q) distances, one a question."""
        return self.distances(self.normal_scores(columns), predicted)

    def suspicion(self, distances: Tensor) -> Tensor:
        """(n, 1) nats."""
        nats = self.tails(distances).clamp(-LARGEST, LARGEST)
        if self.has_limits:
            nats = nats.minimum(self.limits) + BEYOND * (nats - self.limits).clamp(min=0)
        return nats if self.is_plain else nats @ self.weights


def _furthest(tail: Curves, nats: np.ndarray) -> np.ndarray:
    """The largest distances that are no more surprising than ``nats``; ±inf where none is, or all are."""
    at, to, after = tail.at[0].numpy(), tail.to[0].numpy(), tail.after[0].item()
    right = np.searchsorted(to, nats, side="right")
    left, inside = (right - 1).clip(0), right.clip(max=len(to) - 1)
    run, rise = at[inside] - at[left], to[inside] - to[left]
    within = at[left] + (nats - to[left]) * run / np.where(rise > 0, rise, 1.0)
    within = np.where(run > 0, within, np.nextafter(at[left], -np.inf))  # a jump: reached from below only
    beyond = at[-1] + (nats - to[-1]) / after
    found = np.where(right == len(to), beyond, within)
    return np.where(right == 0, -np.inf, np.where(nats >= LARGEST, np.inf, found))


def _for_all(classes: int, columns: int, locations: Tensor | None) -> Tensor:
    """(classes, columns), with rows of 0 for the classes that no clean image was predicted to be."""
    found = torch.zeros(classes, columns, dtype=torch.float64)
    if locations is not None:
        found[: len(locations)] = locations
    return found


def _stacked(tails: list[Curves]) -> Curves:
    """Curves of one function each as one of several, short ones padded by their last knot, which changes nothing."""
    longest = max(one.at.shape[1] for one in tails)

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values, values[:, -1:].expand(-1, longest - values.shape[1])], dim=1)

    return Curves(
        torch.cat([padded(one.at) for one in tails]),
        torch.cat([padded(one.to) for one in tails]),
        torch.cat([one.before for one in tails]),
        torch.cat([one.after for one in tails]),
    )
