"""|K₃|_F for K₃ = Σ p_s (w_s − w̄)⊗³ without materialising a third derivative.

|K₃|² is a sum over pairs of classes, in one of two forms that each keep their digits where the other loses
them. With v_s = w_s − w_t for the top class t:

Far from a tie, relative to t (ṽ = v − v̄, v̄ = e^m Σ q v, ṽ_t = −v̄):
    |K₃|² = e^{2m} Σ_{s,s'≠t} q_s q_s' ⟨ṽ_s, ṽ_s'⟩³ + 2 p_t e^m Σ_{s≠t} q_s ⟨ṽ_t, ṽ_s⟩³ + p_t² |v̄|⁶.
Near a tie of t with the second class u, K₃ vanishes with δ = p_t − p_u and with the other classes' weight;
relative to the midpoint of w_t and w_u, with h = (w_t − w_u)/2, S = p_t + p_u, μ the mean, x_s the others:
    K₃ = δ h⊗³ − 3S sym(h⊗h⊗μ) + 3δ sym(h⊗μ⊗μ) − S μ⊗³ + Σ_{s≠t,u} p_s (x_s − μ)⊗³.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.head import Head
from uncannyvalley.measures.eigenvalue import gram_from_top
from uncannyvalley.softmax import TopClassSoftmax

EXACT_CLASSES = 2000
"""Up to here all pairs of classes are summed; beyond, the pairs of the most probable ones."""

KEPT_CLASSES = 512
"""Classes kept beyond EXACT_CLASSES; ``log_dropped_cumulant`` bounds what the others add."""

NEAR_TIE = 0.5
"""Gap in nats below which the form at the midpoint is used."""

_PAIRS_AT_ONCE = 2**22


class InnerProducts(NamedTuple):
    """What |K₃| is made of, for c classes beside the top one: inner products of any class vectors v_s."""

    weights: Float[Tensor, "n c"]
    """q_s of the classes that are summed over"""
    gram: Float[Tensor, "n c c"]
    """⟨v_s, v_s'⟩"""
    offset: Float[Tensor, "n c"]
    """⟨Σ q v, v_s⟩, the sum over all classes, kept or not"""
    length: Float[Tensor, "n"]
    """|Σ q v|²"""
    total: Float[Tensor, "n"]
    """Σ q, over all classes"""

    @classmethod
    def of(cls, weights: Float[Tensor, "n c"], gram: Float[Tensor, "n c c"]) -> "InnerProducts":
        """Where every class with a weight is in the table."""
        offset = (gram @ weights[:, :, None]).squeeze(2)
        return cls(weights, gram, offset, (offset * weights).sum(dim=1), weights.sum(dim=1))


def log_third_cumulant(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n"]:
    """log |K₃|_F for each row, in float64; −inf where it is 0. Rows in chunks of bounded memory."""
    width = head.classes if head.classes <= EXACT_CLASSES else KEPT_CLASSES
    rows = max(1, _PAIRS_AT_ONCE // width**2)
    result = torch.empty_like(softmax.gap)
    for first in range(0, len(result), rows):
        which = slice(first, first + rows)
        part = softmax.rows(which)
        result[which] = _from_top(part, _inner_products(part, head, part.weights))
        tied = torch.nonzero(part.gap < NEAR_TIE).flatten()
        if len(tied):
            near = part.rows(tied)
            second = near.weights.argmax(dim=1)
            others = near.weights.scatter(1, second[:, None], 0.0)
            products = _inner_products(near, head, others)
            kept_all = products.weights.shape == others.shape
            result[first + tied] = _from_midpoint(near, products, second if kept_all else second * 0)
    return result


def log_cumulant_of_gram(softmax: TopClassSoftmax, gram: Float[Tensor, "n c c"]) -> Float[Tensor, "n"]:
    """log |K₃|_F of any class vectors, from their inner products relative to the top class.

    Only ``weights``, ``gap``, ``log_top`` and ``log_scale`` of ``softmax`` are read; the top class may be left out.
    """
    second = softmax.weights.argmax(dim=1)
    others = softmax.weights.scatter(1, second[:, None], 0.0)
    far = _from_top(softmax, InnerProducts.of(softmax.weights, gram))
    near = _from_midpoint(softmax, InnerProducts.of(others, gram), second)
    return torch.where(softmax.gap < NEAR_TIE, near, far)


def _inner_products(softmax: TopClassSoftmax, head: Head, weights: Float[Tensor, "n k"]) -> InnerProducts:
    """For all classes from the table of distances; for vocabularies from the rows of the most probable."""
    if head.classes <= EXACT_CLASSES:
        return InnerProducts.of(weights, gram_from_top(head.squared_distances, softmax.top))
    kept = softmax.weights.topk(KEPT_CLASSES, dim=1).indices
    top_rows = head.weight[softmax.top].double()
    moved = head.weight[kept].double() - top_rows[:, None, :]
    mean = head.combine(weights) - weights.sum(1, True) * top_rows
    offset = (moved @ mean[:, :, None]).squeeze(2)
    return InnerProducts(
        weights.gather(1, kept), moved @ moved.mT, offset, mean.square().sum(dim=1), weights.sum(dim=1)
    )


def _from_top(softmax: TopClassSoftmax, products: InnerProducts) -> Float[Tensor, "n"]:
    """log |K₃| relative to the top class; e^{2m} is carried as a logarithm."""
    weights, gram, offset, length, _ = products
    scale = softmax.scale
    centred = (
        gram
        - scale[:, None, None] * (offset[:, :, None] + offset[:, None, :])
        + (scale.square() * length)[:, None, None]
    )
    pairs = _quadratic(weights, centred.pow(3))
    with_top = offset - (scale * length)[:, None]  # −⟨ṽ_t, ṽ_s⟩ e^{-m}
    mixed = -2 * softmax.log_top.exp() * scale.square() * (weights * with_top.pow(3)).sum(dim=1)
    top_alone = softmax.log_top.mul(2).exp() * scale.pow(4) * length.pow(3)
    return softmax.log_scale + (pairs + mixed + top_alone).clamp(min=0).log() / 2


def _quadratic(weights: Float[Tensor, "n c"], matrix: Float[Tensor, "n c c"]) -> Float[Tensor, "n"]:
    return ((matrix @ weights[:, :, None]).squeeze(2) * weights).sum(dim=1)


def _from_midpoint(
    softmax: TopClassSoftmax, products: InnerProducts, second: Int[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """log |K₃| relative to the midpoint of the two most probable classes.

    ``products`` has weight 0 for the second class, which is its row ``second``.
    """
    everyone = torch.arange(len(second), device=second.device)
    weights, gram, offset, length, rest = products
    scale = softmax.scale
    p_top = softmax.log_top.exp()
    delta, both = p_top * -torch.expm1(-softmax.gap), p_top + scale
    with_second = gram[everyone, second]  # ⟨v_u, v_s⟩
    square = with_second[everyone, second]  # |v_u|²
    # inner products of h = −v_u/2, of x_s = v_s − v_u/2, and of Σ p x = e^m (Σ q v − rest · v_u/2)
    gram = gram - (with_second[:, :, None] + with_second[:, None, :]) / 2 + square[:, None, None] / 4
    h_x, h_h = (square[:, None] / 2 - with_second) / 2, square / 4
    along = offset[everyone, second]  # ⟨Σ q v, v_u⟩
    h_rest = scale * (rest * h_h - along / 2)
    x_rest = scale[:, None] * (
        offset - (along[:, None] + rest[:, None] * with_second) / 2 + (rest * h_h)[:, None]
    )
    rest_rest = scale.square() * (length - rest * along + rest.square() * h_h)
    # and of the mean μ = δh + Σ p x
    h_mu, x_mu = delta * h_h + h_rest, delta[:, None] * h_x + x_rest
    mu_mu = delta.square() * h_h + 2 * delta * h_rest + rest_rest
    tied = _tied_part(delta, both, h_h, h_mu, mu_mu)
    a, b = h_x - h_mu[:, None], x_mu - mu_mu[:, None]
    d, s = delta[:, None], both[:, None]
    others = scale[:, None] * weights
    mixed = others * (d * a.pow(3) - 3 * s * a.square() * b + 3 * d * a * b.square() - s * b.pow(3))
    centred = gram - x_mu[:, :, None] - x_mu[:, None, :] + mu_mu[:, None, None]
    total = tied + 2 * mixed.sum(dim=1) + _quadratic(others, centred.pow(3))
    return total.clamp(min=0).log() / 2


def _tied_part(delta: Tensor, both: Tensor, hh: Tensor, hm: Tensor, mm: Tensor) -> Float[Tensor, "n"]:
    """|δ h⊗³ − 3S sym(h⊗h⊗μ) + 3δ sym(h⊗μ⊗μ) − S μ⊗³|² from the inner products of h and μ.

    The inner product of two symmetrised products is the permanent of their 3 x 3 Gram matrix over 6.
    """
    terms = (delta, -3 * both, 3 * delta, -both)
    hhm_hhm = (hh.square() * mm + 2 * hh * hm.square()) / 3
    hhm_hmm = (hm.pow(3) + 2 * hh * hm * mm) / 3
    hmm_hmm = (mm.square() * hh + 2 * mm * hm.square()) / 3
    gram = (
        (hh.pow(3), hh.square() * hm, hh * hm.square(), hm.pow(3)),
        (hh.square() * hm, hhm_hhm, hhm_hmm, hm.square() * mm),
        (hh * hm.square(), hhm_hmm, hmm_hmm, hm * mm.square()),
        (hm.pow(3), hm.square() * mm, hm * mm.square(), mm.pow(3)),
    )
    rows = [sum(c * g for c, g in zip(terms, row, strict=True)) for row in gram]
    return torch.stack([c * row for c, row in zip(terms, rows, strict=True)]).sum(dim=0)


def log_dropped_cumulant(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n"]:
    """log Σ p_s |w_s − w̄|³ over the classes not kept: the triangle inequality's bound on what they add."""
    kept = softmax.weights.topk(KEPT_CLASSES, dim=1).indices
    dropped = softmax.weights.scatter(1, kept, 0.0)
    mean = head.combine(softmax.weights) * softmax.scale[:, None]
    mean += softmax.log_top.exp()[:, None] * head.weight[softmax.top].double()
    squared = head.squared_norms - 2 * head.apply(mean) + mean.square().sum(1, True)
    bound = (dropped * squared.clamp(min=0).pow(1.5)).sum(dim=1)
    return softmax.log_scale + bound.log()
