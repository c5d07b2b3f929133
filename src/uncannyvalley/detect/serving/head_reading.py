"""What the last layer alone tells about an image, in as few operations as it takes: each costs microseconds at batch 1."""

import math

import torch
from torch import Tensor, nn

from uncannyvalley.head import Head

HEAD_COLUMNS = ("log_odds", "log_norm", "log_relative_sharpness", "energy")

PAIRED_CLASSES = 32
"""Up to this many classes all pairs of them are summed at once; more would cost a table of k³ numbers."""

FLOAT64_CLASSES = 64
"""Up to this many classes the distances are kept in float64, which spares a conversion; more cost memory bandwidth."""

_LOWEST = -1e30
"""Stands for the logarithm of 0, as in the detector's columns: −inf times 0 would be NaN."""


def head_reading(head: Head) -> nn.Module:
    """Features and logits → ``HEAD_COLUMNS`` (n, 4) in float64, and the predicted class (n,)."""
    return PairedReading(head) if head.classes <= PAIRED_CLASSES else ScaledReading(head)


class PairedReading(nn.Module):
    """The columns of few classes, from five sums of exponentials that one matrix product and one reduction take.

    With t the predicted class:

        log p_t/(1 − p_t) = z_t − log Σ_{s≠t} e^{z_s}        logsumexp z = log Σ_s e^{z_s}
        log κ = 2 log |φ| + log Σ_{s<s'} |w_s − w_s'|² e^{z_s + z_s'} − 2 logsumexp z

    All terms are positive: nothing cancels, so log κ is exact in the valley.
    """

    exponents: Tensor
    offsets: Tensor
    mixing: Tensor

    def __init__(self, head: Head) -> None:
        super().__init__()
        k = head.classes
        first, second = torch.triu_indices(k, k, 1)
        terms = max(k, len(first))  # of each sum, filled up by terms e^−1e30
        one = torch.eye(k, dtype=torch.float64)
        exponents = torch.zeros(k + 1, 5, terms, dtype=torch.float64)  # of the logits and log |φ|
        exponents[:k, :3, :k] = one[:, None]
        exponents[:k, 3, : len(first)] = (one[first] + one[second]).T
        exponents[k, 4, 0] = 1.0
        offsets = torch.full((k, 5, terms), _LOWEST, dtype=torch.float64)  # one row for each predicted class
        offsets[:, 0, :k] = torch.where(one > 0, 0.0, _LOWEST)
        offsets[:, 1, :k] = torch.where(one > 0, _LOWEST, 0.0)
        offsets[:, 2, :k] = 0.0
        offsets[:, 3, : len(first)] = head.squared_distances[first, second].log().clamp(min=_LOWEST)
        offsets[:, 4, 0] = 0.0
        mixing = [
            # z_t  rest  all  pairs  |φ|
            [1.0, -1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0],
            [0.0, 0.0, -2.0, 1.0, 2.0],
            [0.0, 0.0, 1.0, 0.0, 0.0],
        ]
        self.register_buffer("exponents", exponents.flatten(1))
        self.register_buffer("offsets", offsets.flatten(1))
        self.register_buffer("mixing", torch.tensor(mixing, dtype=torch.float64).T.contiguous())

    def forward(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        top = logits.argmax(dim=1)
        read = torch.cat([logits, _log_norm(features)], dim=1).double()
        terms = torch.addmm(nn.functional.embedding(top, self.offsets), read, self.exponents)
        return terms.unflatten(1, (5, -1)).logsumexp(dim=2) @ self.mixing, top


class ScaledReading(nn.Module):
    """The same of many classes, from sums over them that are scaled to their largest terms.

    With u_s = e^{z_s − z_t} of the predicted class t, the second class r, q_s = e^{z_s − z_r} for s ≠ t and q_t = 0:
    Z = Σ u and 2V = Σ_s u_s (Dq)_s + (Dq)_t, D_ss' = |w_s − w_s'|², are sums of positive terms, and all four columns
    are linear in (z_t, z_r, log Σq, log Z, log 2V, log |φ|):

        log p_t/(1 − p_t) = z_t − z_r − log Σq        log Var_p(w) = z_r − z_t − 2 log Z + log V
        logsumexp z = z_t + log Z                     log κ = 2 log |φ| + log Var_p(w)
    """

    distances: Tensor
    classes: Tensor
    adding: Tensor
    mixing: Tensor
    offset: Tensor

    def __init__(self, head: Head) -> None:
        super().__init__()
        few = head.classes <= FLOAT64_CLASSES
        self.register_buffer("distances", head.squared_distances if few else head.rounded_distances)
        self.register_buffer("classes", torch.arange(head.classes))
        ones = torch.ones(head.classes, 1, dtype=torch.float64)
        self.register_buffer("adding", torch.block_diag(ones, ones, ones))
        mixing = [
            #  z_t   z_r   Σq    Z   2V  |φ|
            [1.0, -1.0, -1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
            [-1.0, 1.0, 0.0, -2.0, 1.0, 2.0],
            [1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        ]
        self.register_buffer("mixing", torch.tensor(mixing, dtype=torch.float64).T.contiguous())
        self.register_buffer("offset", torch.tensor([0.0, 0.0, -math.log(2), 0.0], dtype=torch.float64))

    def forward(self, features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        exact = logits.double()
        highest, which = exact.topk(2, dim=1)
        top = which[:, 0]
        is_top = self.classes == top[:, None]
        first, second = highest[:, :1], highest[:, 1:]
        share = (exact - first).exp()
        others = torch.where(is_top, -torch.inf, exact - second).exp()
        spread = others.to(self.distances.dtype) @ self.distances
        pairs = spread * torch.where(is_top, 2.0, share)  # the top class has share 1, and counts once more
        sums = torch.cat([others, share, pairs], dim=1) @ self.adding
        logs = torch.cat([sums.log().clamp(min=_LOWEST), _log_norm(features).double()], dim=1)
        return torch.addmm(self.offset, torch.cat([highest, logs], dim=1), self.mixing), top


def _log_norm(features: Tensor) -> Tensor:
    """(n, 1), in the features' own number type: to 1e-7, where they are no better themselves."""
    return torch.linalg.vector_norm(features, dim=1, keepdim=True).log().clamp(min=_LOWEST)
