"""The softmax seen from its most probable class, where nothing cancels.

In the valley p_t → 1 and every difference like 1 − Σp² is lost in float32. Relative to the
top class t the same quantities are sums of positive terms times a scale e^m that is carried
as a logarithm: m = max_{s≠t} log p_s and q_s = p_s e^{-m} = exp(z_s − max_{s≠t} z_s) ≤ 1.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TopClassSoftmax:
    """Softmax of ``logits``, per row, in float64.

    top        t, the most probable class (the first of equals)
    gap        z_t − max_{s≠t} z_s ≥ 0, nats
    weights    q_s for s ≠ t, in [0, 1]; 0 at t
    log_top    log p_t
    log_scale  m = log of the second largest probability
    """

    top: Int[Tensor, "n"]
    gap: Float[Tensor, "n"]
    weights: Float[Tensor, "n k"]
    log_top: Float[Tensor, "n"]
    log_scale: Float[Tensor, "n"]

    @classmethod
    def of(cls, logits: Float[Tensor, "n k"]) -> "TopClassSoftmax":
        exact = logits.double()
        highest, top = exact.max(dim=1)
        others = exact.scatter(1, top[:, None], -torch.inf)
        second = others.amax(dim=1)
        weights = (others - second[:, None]).exp()
        gap = highest - second
        log_top = -torch.log1p((-gap).exp() * weights.sum(dim=1))
        return cls(top, gap, weights, log_top, log_top - gap)

    def rows(self, which: slice | Int[Tensor, "r"]) -> "TopClassSoftmax":
        """The same for some of the rows."""
        return TopClassSoftmax(
            self.top[which], self.gap[which], self.weights[which], self.log_top[which], self.log_scale[which]
        )

    @cached_property
    def scale(self) -> Float[Tensor, "n"]:
        """e^m; rounds to 0 deep in the valley, where the terms it multiplies do not matter."""
        return self.log_scale.exp()

    @cached_property
    def weight_sum(self) -> Float[Tensor, "n"]:
        """Σ_{s≠t} q_s, so that 1 − p_t = e^m times it."""
        return self.weights.sum(dim=1)

    @cached_property
    def log_gini(self) -> Float[Tensor, "n"]:
        """log(1 − Σp²) = m + log(2 p_t Σq + e^m ((Σq)² − Σq²)), sums over s ≠ t."""
        off_top = self.weight_sum.square() - self.weights.square().sum(dim=1)
        pairs = 2 * self.log_top.exp() * self.weight_sum + self.scale * off_top
        return self.log_scale + pairs.log()
