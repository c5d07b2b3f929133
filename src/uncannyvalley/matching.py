"""Whose row is this? Queries of a foreign attack → the examples they belong to, decided by geometry alone.

Attacks drop, reorder and repeat rows, so a row's position says nothing. A row belongs to an example where it is
nearest to it, that is to its original or to its last row, by a clear factor, and inside its ball where one is known.
What fits two examples is ambiguous, what fits none is unmatched; neither is guessed.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uncannyvalley.errors import InputError, unknown_name

CLEARLY = 1.25
"""The second nearest example must be this many times as far as the nearest."""

BALL_SLACK, BALL_FLOOR = 1e-3, 1e-6
"""Libraries clip in float32: a row may leave its ball by this part of eps, or by this many pixels."""

NEAREST = 4
"""Examples whose distance to a doubtful row is computed exactly; the matrix product before it loses small ones."""

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
        self._points = torch.cat([originals, originals])  # where each example began, then where it was last
        self._squares = self._points.square().sum(dim=1)
        self._longest = self._squares[: self.count].max().sqrt()
        self.eps, self.norm, self.strict = eps, norm, strict
        self._far = self._typical_separation()

    @property
    def originals(self) -> Float[Tensor, "n d"]:
        return self._points[: self.count]

    @property
    def last(self) -> Float[Tensor, "n d"]:
        """The last row of each example, its original before the first."""
        return self._points[self.count :]

    def _typical_separation(self) -> float:
        """Median distance of an original to the nearest other one that is no duplicate; infinite where there is none."""
        between = self._distances(self.originals)[:, : self.count]
        between[between <= self._slack(self.originals)[:, None]] = torch.inf
        separations = between.amin(dim=1)
        finite = separations[separations.isfinite()]
        return finite.median().item() if len(finite) else math.inf

    def _distances(self, rows: Float[Tensor, "m d"]) -> Float[Tensor, "m points"]:
        """L2 distances to all originals and last rows by one matrix product, right within ``_slack``."""
        squared = torch.addmm(self._squares, rows, self._points.T, alpha=-2)
        return squared.add_(rows.square().sum(dim=1)[:, None]).clamp_(min=0).sqrt_()

    def match(self, rows: Float[Tensor, "m ..."]) -> Match:
        """The examples that the rows of one call belong to; remembers the matched rows as their last ones."""
        rows = rows.flatten(1).float()
        finite = torch.isfinite(rows).all(dim=1)
        known = torch.where(finite[:, None], rows, 0.0)
        to_original, to_last = self._distances(known).split(self.count, dim=1)
        reach = torch.minimum(to_original, to_last)
        in_any = torch.zeros_like(finite)
        if self.eps is not None:
            in_ball = self._in_ball(known, to_original)
            in_any = in_ball.any(dim=1)
            outside = ~in_ball if self.strict else ~in_ball & in_any[:, None]
            reach = reach.masked_fill(outside, torch.inf)
        nearest, distance, second = self._two_nearest(known, reach)
        is_clear = distance.isfinite() & (distance * CLEARLY <= second)
        # inside a ball a row may be anywhere; elsewhere one that is further off than the next image is nobody's
        is_far = ~in_any & ((distance > self._far) | distance.isinf())
        fate = torch.full_like(nearest, Fate.AMBIGUOUS)
        fate[is_clear] = Fate.MATCHED
        fate[is_far] = Fate.UNMATCHED
        fate[~finite] = Fate.NOT_FINITE
        owner = torch.where(fate == Fate.MATCHED, nearest, -1)
        return Match(owner, fate, nearest, distance, second, self._remember(rows, owner))

    def follow(self, rows: Float[Tensor, "m ..."], owner: Int[Tensor, "m"]) -> Match:
        """The same for rows whose examples are known."""
        rows = rows.flatten(1).float()
        nowhere = torch.zeros(len(rows), device=rows.device)
        fate = torch.full_like(owner, Fate.MATCHED)
        return Match(owner, fate, owner, nowhere, nowhere, self._remember(rows, owner))

    def _in_ball(self, rows: Tensor, to_original: Float[Tensor, "m n"]) -> Bool[Tensor, "m n"]:
        """Which balls each row lies in. Only balls that the L2 distance leaves possible are looked at."""
        assert self.eps is not None  # the caller asked
        radius = self.eps * (1 + BALL_SLACK) + BALL_FLOOR
        around = radius * math.sqrt(rows.shape[1]) if self.norm == "linf" else radius
        inside = to_original <= around + self._slack(rows)[:, None]
        pairs = inside.nonzero()
        order = torch.inf if self.norm == "linf" else 2
        for part in pairs.split(max(1, _PAIRS_AT_ONCE // rows.shape[1])):
            row, example = part.T
            apart = torch.linalg.vector_norm(rows[row] - self.originals[example], order, dim=1)
            inside[row, example] = apart <= radius
        return inside

    def _two_nearest(
        self, rows: Tensor, reach: Float[Tensor, "m n"]
    ) -> tuple[Int[Tensor, "m"], Float[Tensor, "m"], Float[Tensor, "m"]]:
        """The nearest example of each row, its distance and that of the next one; exact where rounding leaves a doubt."""
        distance, candidates = reach.topk(min(NEAREST, reach.shape[1]), dim=1, largest=False)
        slack = self._slack(rows)
        next_nearest = distance[:, 1] if distance.shape[1] > 1 else torch.full_like(slack, torch.inf)
        is_settled = (distance[:, 0] + slack) * CLEARLY <= next_nearest - slack
        is_settled &= distance[:, 0] + slack < self._far
        doubtful = (~is_settled).nonzero().flatten()
        if len(doubtful):
            exact = self._exactly(rows[doubtful], candidates[doubtful])
            exact[distance[doubtful].isinf()] = torch.inf
            order = exact.argsort(dim=1, stable=True)
            distance[doubtful] = exact.gather(1, order)
            candidates[doubtful] = candidates[doubtful].gather(1, order)
        second = distance[:, 1] if distance.shape[1] > 1 else torch.full_like(slack, torch.inf)
        return candidates[:, 0], distance[:, 0], second

    def _slack(self, rows: Tensor) -> Float[Tensor, "m"]:
        """What rounding may add to a distance by matrix product: a 500th of the vectors' own lengths."""
        return 2e-3 * (rows.norm(dim=1) + self._longest)

    def _exactly(self, rows: Float[Tensor, "r d"], candidates: Int[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        """Distance of each row to its candidates: to their originals or their last rows, whichever is nearer."""
        return torch.stack(
            [
                torch.minimum((rows - self.originals[one]).norm(dim=1), (rows - self.last[one]).norm(dim=1))
                for one in candidates.T
            ],
            dim=1,
        )

    def _remember(self, rows: Tensor, owner: Int[Tensor, "m"]) -> Float[Tensor, "m d"]:
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
            moved = torch.tensor(list(latest), device=rows.device) + self.count
            self._points[moved] = rows[list(latest.values())]
            self._squares[moved] = self._points[moved].square().sum(dim=1)
        return previous
