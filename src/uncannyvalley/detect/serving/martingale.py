"""A bet against "these p-values are uniform and independent": its wealth grows only where that is false.

Wealth is a nonnegative martingale from 1 under uniform, independent p-values, so the probability that it *ever* reaches
1/δ is at most δ (Ville 1939). See Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World, chapter 7, and
Volkhonskiy et al. 2017, arXiv 1706.03415, for change points.
"""

import math
from collections.abc import Callable

import numpy as np

RISE, FALL, SPREAD, NARROWING = "scores rise", "scores fall", "scores spread", "scores narrow"

_LEAST_P = 1e-9
"""Smaller p-values pay no more, which can only lower a density's mean below 1."""


def _steep(p: float) -> float:
    return 0.2 * max(p, _LEAST_P) ** -0.8


def _arcsine(p: float) -> float:
    return 1 / (math.pi * math.sqrt(max(p, _LEAST_P) * max(1 - p, _LEAST_P)))


DENSITIES: tuple[tuple[str, Callable[[float], float]], ...] = (
    (RISE, lambda p: 2 * (1 - p)),
    (RISE, _steep),
    (FALL, lambda p: 2 * p),
    (FALL, lambda p: _steep(1 - p)),
    (SPREAD, _arcsine),
    (NARROWING, lambda p: 6 * p * (1 - p)),
)
"""What drift would look like, and the density of p on (0, 1] then; small p are high scores."""

STAKES = (1.0, 0.4, 0.1)
"""Shares of the wealth that are bet on a density: small ones find weak drift, such as few adversarial images."""

_NAMES = [name for name, _ in DENSITIES for _ in STAKES]


class Martingale:
    """A mixture over densities, stakes and the time at which to begin betting.

    What is not yet bet after n p-values is 1/log₂(n + 2) of the first unit, so a drift that begins late meets wealth that was not
    lost before: starting at time n costs about log n + 2 log log n nats, not an amount that grows with n.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.log_at_stake = np.full(len(_NAMES), -np.inf)

    def update(self, p: float) -> float:
        """The log wealth after one more p-value."""
        released = _reserve(self.seen) - _reserve(self.seen + 1)
        pays = np.array([density(p) - 1 for _, density in DENSITIES])
        growth = np.log1p(np.maximum(pays[:, None] * STAKES, -1 + 1e-15)).ravel()
        self.log_at_stake = np.logaddexp(self.log_at_stake, math.log(released / len(_NAMES))) + growth
        self.seen += 1
        return self.log_wealth

    @property
    def log_wealth(self) -> float:
        return float(np.logaddexp(np.logaddexp.reduce(self.log_at_stake), math.log(_reserve(self.seen))))

    @property
    def leading(self) -> str:
        """What the richest bet speaks for."""
        return _NAMES[int(self.log_at_stake.argmax())]


def _reserve(seen: int) -> float:
    return 1 / math.log2(seen + 2)
