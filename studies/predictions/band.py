"""The band in which log κ follows the margin, from the head's weights alone.

With t the most probable class, D_ss' = |w_s − w_s'|², g = z_t − max_{s≠t} z_s and Q = Σ_{s≠t} exp(z_s − max_{s≠t} z_s)
in [1, k − 1], so that 1 − p_t = p_t e^{−g} Q, the relative sharpness is a sum over pairs of classes,

    κ/|φ|² = p_t Σ_{s≠t} p_s D_ts + ½ Σ_{s,s'≠t} p_s p_s' D_ss',   so   p_t² e^{−g} min_s D_ts ≤ κ/|φ|² ≤
    p_t² e^{−g} Q (max_s D_ts + ½ (1 − p_t)/p_t max_{s,s'≠t} D_ss').

Hence, wherever p_t ≥ c, R = log κ + g − 2 log|φ| lies between

    L_t = 2 log c + log min_s D_ts   and   U_t = log(k − 1) + log(max_s D_ts + (1 − c)/(2c) max_{s,s'≠t} D_ss'),

and between two such points Δlog κ = −Δg + 2 Δlog|φ| up to U − L. With the log-odds λ = g − log Q in place of g the term
log(k − 1) falls away.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Band:
    """L_t and U_t of each class as the most probable one, (k,), for p_t ≥ ``confidence``."""

    confidence: float
    low: np.ndarray
    high: np.ndarray
    classes: int

    @property
    def width(self) -> float:
        """The largest |Δlog κ + Δg − 2 Δlog|φ|| that W allows between two confident points of any classes, nats."""
        return float(self.high.max() - self.low.min())

    @property
    def width_by_odds(self) -> float:
        """The same with the log-odds of the most probable class in the margin's place."""
        return self.width - float(np.log(self.classes - 1))


def band(weight: np.ndarray, confidence: float) -> Band:
    """The band of a head with rows w_1 … w_k, (k, d)."""
    rows = weight.astype(np.float64)
    distances = np.square(rows[:, None] - rows[None]).sum(axis=2)
    classes = len(rows)
    low, high = np.empty(classes), np.empty(classes)
    for top in range(classes):
        others = np.arange(classes) != top
        to_top, among = distances[top, others], distances[np.ix_(others, others)]
        low[top] = 2 * np.log(confidence) + np.log(to_top.min())
        high[top] = np.log(classes - 1) + np.log(
            to_top.max() + (1 - confidence) / (2 * confidence) * among.max()
        )
    return Band(confidence, low, high, classes)
