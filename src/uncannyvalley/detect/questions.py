"""What a detector asks about a row of columns, and how surprising an answer is, in nats, by what clean rows answer.

A one-sided question adds up normal scores of its columns, takes away what other columns explain of the sum, and asks how
far into one tail the rest lies. A two-sided one asks how far its columns lie from clean ones jointly (Mahalanobis).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from uncannyvalley.detect.curves import Curves, surprise
from uncannyvalley.errors import InputError

SIDES = ("low", "high", "both")

SHRINKAGE = 0.02
"""Least share of the identity in a covariance: columns may repeat each other."""


BEYOND = 0.01
"""Slope of a surprise beyond its question's limit."""


@dataclass(frozen=True)
class Question:
    """One question about a row.

    name     what it is called in explanations
    columns  column → weight in the sum (low and high); both: the columns asked jointly
    side     which answers are suspicious: "low" or "high" sums, or "both" for unusual rows on any side
    given    columns whose quadratic share of the sum is taken away first (low and high)
    weight   of its surprise in the detector's score
    limit    nats beyond which its surprise counts a hundredth (an attacker must still see which way is down); None: no limit
    """

    name: str
    columns: Mapping[str, float]
    side: str = "both"
    given: Sequence[str] = ()
    weight: float = 1.0
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise InputError(f"the side of a question is one of {', '.join(SIDES)}; got {self.side!r}")
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise InputError(
                f"question {self.name!r} needs columns with their weights, {{name: weight}}; got {self.columns!r}"
            )
        if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in self.columns.values()):
            raise InputError(
                f"the weights of question {self.name!r} must be finite, got {dict(self.columns)}"
            )
        if not _is_positive(self.weight):
            raise InputError(f"the weight of question {self.name!r} must be above 0, got {self.weight!r}")
        if self.limit is not None and not _is_positive(self.limit):
            raise InputError(f"the limit of question {self.name!r} must be above 0 nats, got {self.limit!r}")
        if self.given and self.side == "both":
            raise InputError(
                f"question {self.name!r} asks on both sides, where given columns have no meaning; leave them out"
            )


@dataclass(frozen=True)
class Answers:
    """A question fitted to clean rows.

    centre, precision  of a two-sided question's columns
    explained          weights of 1, g and g² in the sum's explanation by the given columns g
    tail               how surprising a distance is
    """

    question: Question
    asked: Sequence[int]
    given: Sequence[int]
    centre: Float[Tensor, "c"]
    precision: Float[Tensor, "c c"]
    explained: Float[Tensor, "e"]
    tail: Curves

    @classmethod
    def fit(cls, question: Question, names: Sequence[str], scores: Float[Tensor, "n p"]) -> "Answers":
        """From normal scores of clean rows, whose columns are ``names``."""
        unknown = [one for one in (*question.columns, *question.given) if one not in names]
        if unknown:
            raise InputError(
                f"question {question.name!r} asks about {', '.join(unknown)}, which the rows do not have"
            )
        asked = [list(names).index(one) for one in question.columns]
        given = [list(names).index(one) for one in question.given]
        columns = scores[:, asked].numpy()
        covariance = (1 - SHRINKAGE) * ledoit_wolf(columns)[0] + SHRINKAGE * np.eye(len(asked))
        centre, precision = torch.tensor(columns.mean(axis=0)), torch.tensor(np.linalg.inv(covariance))
        nothing = torch.zeros(1 + 2 * len(given), dtype=torch.float64)
        blank = cls(question, asked, given, centre, precision, nothing, _no_tail())
        if question.side != "both":
            target = blank._sum(scores).numpy()
            found = np.linalg.lstsq(_powers(scores[:, given]).numpy(), target, rcond=None)[0]
            blank = cls(question, asked, given, centre, precision, torch.tensor(found), _no_tail())
        tail = surprise(blank.distance(scores).numpy()[:, None])
        return cls(question, asked, given, centre, precision, blank.explained, tail)

    def distance(self, scores: Float[Tensor, "n p"]) -> Float[Tensor, "n"]:
        """How far into the suspicious tail each row lies, in the question's own unit."""
        if self.question.side == "both":
            apart = scores[:, self.asked] - self.centre.to(scores)
            return ((apart @ self.precision.to(scores)) * apart).sum(dim=1)
        rest = self._sum(scores) - _powers(scores[:, self.given]) @ self.explained.to(scores)
        return -rest if self.question.side == "low" else rest

    def nats(self, scores: Float[Tensor, "n p"]) -> Float[Tensor, "n"]:
        """−log of the share of clean rows that lie further out, up to the question's limit."""
        found = self.tail(self.distance(scores)[:, None])[:, 0]
        limit = self.question.limit
        return found if limit is None else found.clamp(max=limit) + BEYOND * (found - limit).clamp(min=0)

    def _sum(self, scores: Float[Tensor, "n p"]) -> Float[Tensor, "n"]:
        weights = torch.tensor(list(self.question.columns.values()), dtype=scores.dtype, device=scores.device)
        return scores[:, self.asked] @ weights


def _is_positive(number: object) -> bool:
    return isinstance(number, (int, float)) and math.isfinite(number) and number > 0


def _powers(given: Float[Tensor, "n g"]) -> Float[Tensor, "n e"]:
    return torch.cat([torch.ones_like(given[:, :0].sum(dim=1, keepdim=True)), given, given.square()], dim=1)


def _no_tail() -> Curves:
    nothing = torch.zeros(1, 2, dtype=torch.float64)
    return Curves(nothing, nothing, nothing[:, 0], nothing[:, 0])
