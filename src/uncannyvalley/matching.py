"""Whose row is this? Queries of a foreign attack → the examples they belong to, decided by geometry alone.

Attacks drop, reorder and repeat rows, so a row's position says nothing. A row belongs to an example where it is
nearest to it, that is to its original or to its last row, by a clear factor, and inside its ball where one is known.
What fits two examples is ambiguous, what fits none is unmatched; neither is guessed.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uncannyvalley.errors import InputError, unknown_name

CLEARLY = 1.25
"""The second nearest example must be more than this many times as far as the nearest."""

BALL_SLACK, BALL_FLOOR = 1e-3, 1e-6
"""Libraries clip in float32: a row may leave its ball by this part of eps, or by this many pixels."""

NEAREST = 4
"""Examples, at least, whose distance to a doubtful row is computed exactly; the matrix product loses small ones."""

_PAIRS_AT_ONCE = 2**24
"""Elements of rows that are compared with balls at a time."""


class Fate(IntEnum):
    """What became of a row."""

    MATCHED = 0
    AMBIGUOUS = 1
    UNMATCHED = 2
    NOT_FINITE = 3


@dataclass(frozen=True)
class Match:
    """The fate of each row of one call.

    owner     the example, −1 where the row has none
    fate      a Fate
    nearest   the example that came nearest, whatever the fate
    distance  L2 distance to it: to its original or to its last row, whichever is nearer
    second    that of the next example; infinite where no other came into question
    previous  the row before: that example's last one, or its original at its first
    """

    owner: Int[Tensor, "m"]
    fate: Int[Tensor, "m"]
    nearest: Int[Tensor, "m"]
    distance: Float[Tensor, "m"]
    second: Float[Tensor, "m"]
    previous: Float[Tensor, "m d"]

    def without(self, lost: Bool[Tensor, "m"]) -> "Match":
        """The same with some rows not finite, whatever they were."""
        fate = torch.where(lost, Fate.NOT_FINITE, self.fate)
        return replace(self, owner=torch.where(lost, -1, self.owner), fate=fate)


class Matcher:
    """Remembers where each example was seen last.

    originals  (n, …), the images that the attack was given
    eps, norm  the ball that every query lies in, where the attack promises one
    strict     whether a row outside all balls is unmatched; otherwise it is judged by its distances alone

    Each call costs one matrix product of its rows with 2 n points.
    """

    def __init__(
        self, originals: Float[Tensor, "n ..."], eps: float | None, norm: str, *, strict: bool = True
    ) -> None:
        if norm not in ("linf", "l2"):
            raise unknown_name("norm", norm, ("linf", "l2"))
        if eps is not None and not (isinstance(eps, (int, float)) and math.isfinite(eps) and eps > 0):
            raise InputError(
                f"eps must be a finite number above 0 in units of the input's range, or None; got {eps!r}"
            )
        originals = originals.flatten(1).float()
        self.count = len(originals)
        # where each example began, where it was last, and where it may have been in a row that was ambiguous
        self._points = torch.cat([originals, originals, originals])
        self._squares = self._points.square().sum(dim=1)
        self._longest = self._squares.max().sqrt()
        self._stride = torch.zeros_like(self._squares[: self.count])
        self._doubted = torch.zeros_like(self._stride, dtype=torch.bool)
        self.eps, self.norm, self.strict = eps, norm, strict
        self._far = self._typical_separation()

    @property
    def originals(self) -> Float[Tensor, "n d"]:
        return self._points[: self.count]

    @property
    def last(self) -> Float[Tensor, "n d"]:
        """The last row of each example, its original before the first."""
        return self._points[self.count : 2 * self.count]

    def _typical_separation(self) -> float:
        """Median distance of an original to the nearest other one that is no duplicate; infinite where there is none."""
        squares = self._squares[: self.count]
        between = self._distances(self.originals, squares)[0]
        between[between <= self._slack(squares)[:, None]] = torch.inf
        separations = between.amin(dim=1)
        finite = separations[separations.isfinite()]
        return finite.median().item() if len(finite) else math.inf

    def _distances(
        self, rows: Float[Tensor, "m d"], squares: Float[Tensor, "m"]
    ) -> tuple[Float[Tensor, "m n"], ...]:
        """L2 distances to all originals, last rows and, where any is doubted, possible ones; right within ``_slack``."""
        known = (3 if self._doubted.any() else 2) * self.count
        squared = torch.addmm(self._squares[:known], rows, self._points[:known].T, alpha=-2)
        return squared.add_(squares[:, None]).clamp_(min=0).sqrt_().split(self.count, dim=1)

    def match(self, rows: Float[Tensor, "m ..."]) -> Match:
        """The examples that the rows of one call belong to; remembers the matched rows as their last ones."""
        rows = rows.flatten(1).float()
        squares = rows.square().sum(dim=1)
        finite = torch.isfinite(squares)
        if not finite.all():
            rows, squares = torch.where(finite[:, None], rows, 0.0), torch.where(finite, squares, 0.0)
        slack = self._slack(squares)
        to_original, at_last, *doubts = self._distances(rows, squares)
        if doubts:
            at_last = torch.where(self._doubted, doubts[0], at_last)
        reach = torch.minimum(to_original, at_last)
        in_any = torch.zeros_like(finite)
        if self.eps is not None:
            in_ball = self._in_ball(rows, to_original, slack)
            in_any = in_ball.any(dim=1)
            outside = ~in_ball if self.strict else ~in_ball & in_any[:, None]
            reach = reach.masked_fill(outside, torch.inf)
        nearest, distance, second = self._two_nearest(rows, reach, slack)
        # a walk that is no more than its step away may have come this far, whatever the row is nearer to
        in_step = (at_last < CLEARLY * self._stride) & reach.isfinite()
        has_rival = (in_step & ~_columns(nearest, self.count)).any(dim=1)
        is_clear = distance.isfinite() & (distance * CLEARLY < second) & ~has_rival
        # inside a ball a row may be anywhere; elsewhere one that is further off than the next image is nobody's
        is_far = ~in_any & ((distance > self._far) | distance.isinf())
        fate = torch.full_like(nearest, Fate.AMBIGUOUS)
        fate[is_clear] = Fate.MATCHED
        fate[is_far] = Fate.UNMATCHED
        fate[~finite] = Fate.NOT_FINITE
        owner = torch.where(fate == Fate.MATCHED, nearest, -1)
        self._doubt(rows, fate, in_step, reach <= CLEARLY * distance[:, None])
        moves = at_last.gather(1, nearest[:, None]).squeeze(1)
        return Match(owner, fate, nearest, distance, second, self._remember(rows, squares, owner, moves))

    def _doubt(
        self, rows: Tensor, fate: Tensor, in_step: Bool[Tensor, "m n"], fits: Bool[Tensor, "m n"]
    ) -> None:
        """Walks that met in an ambiguous row may both go on from there, until a row of theirs is clear again."""
        suspects = in_step | (fits & (in_step.any(dim=1, keepdim=True) | self._doubted))
        for row in (fate == Fate.AMBIGUOUS).nonzero().flatten().tolist():
            which = suspects[row].nonzero().flatten()
            self._doubted[which] = True
            self._points[which + 2 * self.count] = rows[row]
            self._squares[which + 2 * self.count] = rows[row].square().sum()

    def follow(self, rows: Float[Tensor, "m ..."], owner: Int[Tensor, "m"]) -> Match:
        """The same for rows whose examples are known."""
        rows = rows.flatten(1).float()
        nowhere = torch.zeros(len(rows), device=rows.device)
        fate = torch.full_like(owner, Fate.MATCHED)
        previous = self._remember(rows, rows.square().sum(dim=1), owner, nowhere)
        return Match(owner, fate, owner, nowhere, nowhere, previous)

    def _in_ball(
        self, rows: Tensor, to_original: Float[Tensor, "m n"], slack: Float[Tensor, "m"]
    ) -> Bool[Tensor, "m n"]:
        """Which balls each row lies in. Only balls that the L2 distance leaves possible are looked at."""
        assert self.eps is not None  # the caller asked
        radius = self.eps * (1 + BALL_SLACK) + BALL_FLOOR
        around = radius * math.sqrt(rows.shape[1]) if self.norm == "linf" else radius
        inside = to_original <= around + slack[:, None]
        pairs = inside.nonzero()
        order = torch.inf if self.norm == "linf" else 2
        for part in pairs.split(max(1, _PAIRS_AT_ONCE // rows.shape[1])):
            row, example = part.T
            apart = torch.linalg.vector_norm(rows[row] - self.originals[example], order, dim=1)
            inside[row, example] = apart <= radius
        return inside

    def _two_nearest(
        self, rows: Tensor, reach: Float[Tensor, "m n"], slack: Float[Tensor, "m"]
    ) -> tuple[Int[Tensor, "m"], Float[Tensor, "m"], Float[Tensor, "m"]]:
        """The nearest example of each row, its distance and that of the next one; exact where rounding leaves a doubt."""
        distance, candidates = reach.topk(min(NEAREST, reach.shape[1]), dim=1, largest=False)
        next_nearest = distance[:, 1] if distance.shape[1] > 1 else torch.full_like(slack, torch.inf)
        is_settled = (distance[:, 0] + slack) * CLEARLY <= next_nearest - slack
        is_settled &= distance[:, 0] + slack < self._far
        doubtful = (~is_settled).nonzero().flatten()
        if len(doubtful):
            # all that rounding could have put before the nearest
            limit = distance[doubtful, :1] + 2 * slack[doubtful, None]
            most = int((reach[doubtful] <= limit).sum(dim=1).max())
            rough, near = reach[doubtful].topk(min(max(most, NEAREST), reach.shape[1]), dim=1, largest=False)
            exact = self._exactly(rows[doubtful], near).masked_fill(rough.isinf(), torch.inf)
            order = exact.argsort(dim=1, stable=True)[:, : distance.shape[1]]
            distance[doubtful] = exact.gather(1, order)
            candidates[doubtful] = near.gather(1, order)
        second = distance[:, 1] if distance.shape[1] > 1 else torch.full_like(slack, torch.inf)
        return candidates[:, 0], distance[:, 0], second

    def _slack(self, squares: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
        """What rounding may add to a distance by matrix product: a 500th of the vectors' own lengths."""
        return 2e-3 * (squares.sqrt() + self._longest)

    def _exactly(self, rows: Float[Tensor, "r d"], candidates: Int[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        """Distance of each row to its candidates: to their originals or their last (possible) rows, whichever is nearer."""
        last_place = self.count * (1 + self._doubted.long())
        columns = []
        for one in candidates.T:
            to_original = (rows - self._points[one]).norm(dim=1)
            to_last = (rows - self._points[one + last_place[one]]).norm(dim=1)
            columns.append(torch.minimum(to_original, to_last))
        return torch.stack(columns, dim=1)

    def _remember(
        self, rows: Tensor, squares: Float[Tensor, "m"], owner: Int[Tensor, "m"], moves: Float[Tensor, "m"]
    ) -> Float[Tensor, "m d"]:
        """Move the last rows on, and return the row before each; one call may hold several of an example."""
        previous = self.last[owner.clamp(min=0)]
        latest: dict[int, int] = {}
        for position, example in enumerate(owner.tolist()):
            if example < 0:
                continue
            if example in latest:
                previous[position] = rows[latest[example]]
            latest[example] = position
        if latest:
            moved, now = (torch.tensor(list(one), device=rows.device) for one in (latest, latest.values()))
            # a jump of half the images' distance is no step of a walk
            self._stride[moved] = torch.where(moves[now] < self._far / 2, moves[now], 0.0)
            self._doubted[moved] = False
            self._points[moved + self.count] = rows[now]
            self._squares[moved + self.count] = squares[now]
        return previous


def _columns(which: Int[Tensor, "m"], count: int) -> Bool[Tensor, "m n"]:
    """True at one column of each row."""
    return which[:, None] == torch.arange(count, device=which.device)
