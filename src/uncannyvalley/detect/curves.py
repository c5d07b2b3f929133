"""Piecewise linear functions of one number, fitted to clean data: normal scores, and surprise in nats.

They are differentiable almost everywhere and made of comparisons and gathers alone, so that the same code scores an array,
is climbed by an attacker and is exported to other runtimes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

KNOTS = 199
"""Of a curve; fewer where there are fewer rows."""

TAIL = 0.1
"""Share of the rows behind the exponential tail of a surprise."""

STEEPEST = 1e12
"""Bound of a slope, so that no product with it is infinite."""

LARGEST = 1e3
"""Bound of every curve: further out nothing more is told, and sums stay finite."""


@dataclass(frozen=True)
class Curves:
    """c piecewise linear functions: ``at`` (c, m) knots, ascending, ``to`` (c, m) values there, and the slopes outside."""

    at: Float[Tensor, "c m"]
    to: Float[Tensor, "c m"]
    before: Float[Tensor, "c"]
    after: Float[Tensor, "c"]

    def __call__(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Each column by its own function, within ±``LARGEST``."""
        knots, values = self.at.to(x.device), self.to.to(x.device)
        last = knots.shape[1] - 1
        left = (x[:, :, None] >= knots[None]).sum(dim=2) - 1  # −1: before the first knot
        which = torch.arange(knots.shape[0], device=x.device)
        segment = left.clamp(0, last - 1)
        x0, y0 = knots[which, segment], values[which, segment]
        run = knots[which, segment + 1] - x0
        rise = values[which, segment + 1] - y0
        slope = (rise / torch.where(run > 0, run, 1.0)).clamp(max=STEEPEST)
        before = left < 0
        outside = torch.where(before, self.before.to(x.device), self.after.to(x.device))
        edge_x = torch.where(before, knots[:, 0], knots[:, last])
        edge_y = torch.where(before, values[:, 0], values[:, last])
        inside = y0 + (x - x0) * slope
        found = torch.where(before | (left >= last), edge_y + (x - edge_x) * outside, inside)
        return found.clamp(-LARGEST, LARGEST)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name).numpy() for name in ("at", "to", "before", "after")}


def normal_scores(values: np.ndarray) -> Curves:
    """Columns (n, c) → standard normal on these very rows, by their quantiles; linear outside, as steep as the last tenth."""
    ranks = _ranks(len(values))
    at = np.quantile(values, ranks, axis=0).T
    to = np.broadcast_to(norm.ppf(ranks), at.shape)
    reach = max(1, at.shape[1] // 20)
    spread = _spread(values)
    before = _steepness(at, to, 0, reach, spread)
    return _curves(at, to, before, _steepness(at, to, -1 - reach, -1, spread))


def surprise(values: np.ndarray) -> Curves:
    """Columns (n, c) → −log of the share of these rows that lie above, in nats; an exponential tail beyond the last tenth.

    The tail's slope is one over the mean excess (maximum likelihood). Flat below the smallest row.
    """
    count = len(values)
    ranks = _ranks(count)
    ranks = np.append(ranks[ranks < 1 - TAIL], 1 - TAIL)
    at = np.quantile(values, ranks, axis=0).T
    to = np.broadcast_to(-np.log1p(-ranks), at.shape)
    excess = np.where(values > at[:, -1], values - at[:, -1], np.nan)
    with np.errstate(invalid="ignore"):
        above = np.isfinite(excess).sum(axis=0)
        mean = np.nansum(excess, axis=0) / np.maximum(above, 1)
    after = 1 / np.where(mean > 0, mean, _spread(values)).clip(1 / STEEPEST)
    return _curves(at, to, np.zeros(len(at)), after)


def _ranks(count: int) -> np.ndarray:
    knots = max(2, min(KNOTS, count - 1))
    return np.arange(1, knots + 1) / (knots + 1)


def _steepness(at: np.ndarray, to: np.ndarray, first: int, last: int, spread: np.ndarray) -> np.ndarray:
    run = at[:, last] - at[:, first]
    return np.where(run > 0, (to[:, last] - to[:, first]) / run.clip(1 / STEEPEST), 1 / spread)


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation of each column, 1 for one that is constant: any departure from it must count."""
    with np.errstate(over="ignore"):
        found = values.std(axis=0)
    return np.where(found > 0, found, 1.0).clip(1 / STEEPEST, STEEPEST)


def _curves(at: np.ndarray, to: np.ndarray, before: np.ndarray, after: np.ndarray) -> Curves:
    return Curves(
        *(torch.tensor(np.ascontiguousarray(one), dtype=torch.float64) for one in (at, to, before, after))
    )
