"""Third order: the third cumulant of the head's rows under the softmax.

For a direction A, D³ℓ[WA, WA, WA] = Σ p_s (u_s − ū)³ with u = WAφ, the third central moment.
With ṽ_s = w_s − Σ p w and K₃ = Σ p_s ṽ_s⊗ṽ_s⊗ṽ_s, |K₃|_F² = Σ_{s,s'} p_s p_s' ⟨ṽ_s, ṽ_s'⟩³:
no third derivative is ever materialised.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.head import Head
from uncannyvalley.measures.eigenvalue import gram_from_top
from uncannyvalley.measures.registry import measure
from uncannyvalley.softmax import TopClassSoftmax
from uncannyvalley.types import Probe

EXACT_CLASSES = 2000
"""Up to here all pairs of classes are summed; beyond, the pairs of the most probable ones."""

KEPT_CLASSES = 512
"""Classes kept beyond EXACT_CLASSES; ``log_third_order_remainder`` bounds what the others add."""

_PAIRS_AT_ONCE = 2**22


class InnerProducts(NamedTuple):
    """What |K₃| is made of, for c classes beside the top one."""

    weights: Float[Tensor, "n c"]
    """q_s"""
    gram: Float[Tensor, "n c c"]
    """⟨v_s, v_s'⟩"""
    offset: Float[Tensor, "n c"]
    """⟨Σ q v, v_s⟩"""
    length: Float[Tensor, "n"]
    """|Σ q v|²"""


@measure("log_third_order", unit="log", order=3, reference="design: τ = |φ|³ |K₃|_F")
def log_third_order(probe: Probe) -> Float[Tensor, "n"]:
    """log τ, τ = |φ|³ |Σ p_s (w_s − w̄)⊗³|_F; −inf where the third cumulant is 0."""
    return 3 * probe.log_feature_norm + log_third_cumulant(probe.softmax, probe.head)


@measure("log_third_order_remainder", unit="log", order=3, default=False)
def log_third_order_remainder(probe: Probe) -> Float[Tensor, "n"]:
    """log of a proven bound on |τ − exp(log_third_order)|; −inf up to 2000 classes."""
    softmax, head = probe.softmax, probe.head
    if head.classes <= EXACT_CLASSES:
        return torch.full_like(softmax.gap, -torch.inf)
    kept = softmax.weights.topk(KEPT_CLASSES, dim=1).indices
    dropped = softmax.weights.scatter(1, kept, 0.0).scatter(1, softmax.top[:, None], 0.0)
    mean = head.combine(softmax.weights) * softmax.scale[:, None]
    mean += softmax.log_top.exp()[:, None] * head.weight[softmax.top].double()
    squared = head.squared_norms - 2 * head.apply(mean) + mean.square().sum(1, True)
    lengths = squared.clamp(min=0).sqrt()
    bound = (dropped * lengths.pow(3)).sum(dim=1)
    return 3 * probe.log_feature_norm + softmax.log_scale + bound.log()


def log_third_cumulant(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n"]:
    """log |K₃|_F for each row, in float64.

    Relative to the top class t, with v_s = w_s − w_t, mean offset v̄ = e^m Σ q_s v_s and ṽ_t = −v̄:
    |K₃|² = e^{2m} Σ_{s,s'≠t} q_s q_s' ⟨ṽ_s, ṽ_s'⟩³ + 2 p_t e^m Σ_{s≠t} q_s ⟨ṽ_t, ṽ_s⟩³ + p_t² |v̄|⁶.
    """
    if head.classes == 2:
        return _log_third_cumulant_of_two(softmax, head)
    exact = head.classes <= EXACT_CLASSES
    width = head.classes if exact else KEPT_CLASSES
    rows = max(1, _PAIRS_AT_ONCE // width**2)
    parts = []
    for first in range(0, len(softmax.top), rows):
        which = slice(first, first + rows)
        part = softmax.rows(which)
        products = _all_inner_products(part, head) if exact else _kept_inner_products(part, head)
        parts.append(_assemble(part, products))
    return torch.cat(parts)


def _all_inner_products(softmax: TopClassSoftmax, head: Head) -> InnerProducts:
    """Weights q and ⟨v_s, v_s'⟩, ⟨Σqv, v_s⟩, |Σqv|² for all classes."""
    gram = gram_from_top(head.squared_distances, softmax.top)
    offset = (gram @ softmax.weights[:, :, None]).squeeze(2)
    return InnerProducts(softmax.weights, gram, offset, (offset * softmax.weights).sum(dim=1))


def _kept_inner_products(softmax: TopClassSoftmax, head: Head) -> InnerProducts:
    """The same for the most probable classes, with the mean over all classes."""
    weights, kept = softmax.weights.topk(KEPT_CLASSES, dim=1)
    top_rows = head.weight[softmax.top].double()
    moved = head.weight[kept].double() - top_rows[:, None, :]
    mean = head.combine(softmax.weights) - softmax.weight_sum[:, None] * top_rows
    offset = (moved @ mean[:, :, None]).squeeze(2)
    return InnerProducts(weights, moved @ moved.mT, offset, mean.square().sum(dim=1))


def _assemble(softmax: TopClassSoftmax, products: InnerProducts) -> Float[Tensor, "n"]:
    """log |K₃| from the inner products; e^{2m} is carried as a logarithm."""
    weights, gram, offset, length = products
    scale = softmax.scale
    centred = (
        gram
        - scale[:, None, None] * (offset[:, :, None] + offset[:, None, :])
        + (scale.square() * length)[:, None, None]
    )
    pairs = (weights[:, None, :] @ centred.pow(3) @ weights[:, :, None]).flatten()
    with_top = offset - (scale * length)[:, None]  # −⟨ṽ_t, ṽ_s⟩ e^{-m}
    mixed = -2 * softmax.log_top.exp() * scale.square() * (weights * with_top.pow(3)).sum(dim=1)
    top_alone = softmax.log_top.mul(2).exp() * scale.pow(4) * length.pow(3)
    total = (pairs + mixed + top_alone).clamp(min=0)
    return softmax.log_scale + total.log() / 2


def _log_third_cumulant_of_two(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n"]:
    """|K₃| = p(1−p)|1−2p||v|³; 1−2p = tanh(gap/2) keeps its digits at the ridge."""
    length = head.squared_distances[0, 1].log() * 1.5
    return softmax.log_top + softmax.log_scale + torch.tanh(softmax.gap / 2).log() + length
