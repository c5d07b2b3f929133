"""Mean κ or log κ of a batch with its slopes written out: one node for autograd instead of a hundred small ones.

With the top class t, m, q_s = p_s e^{−m} for s ≠ t as in ``TopClassSoftmax``, D the table of |w_s − w_s'|²,
A = Σ q_s D_st and B = ½ Σ q_s q_s' D_ss':

    log κ = 2 log|φ| + m + log v,              v = p_t A + e^m B
    ∂ log κ/∂φ = 2 φ/|φ|²                      (besides what goes through the logits)
    ∂ log κ/∂z_s = q_s M_s/v − 2 p_s,          M_s = p_t D_st + e^m (Dq)_s     for s ≠ t
    ∂ log κ/∂z_t = p_t (A/v − 2)
    ∂ log κ/∂w_s = 2 Σ_s' C_ss' (w_s − w_s'),  C_ts = p_t q_s/v,  C_ss' = e^m q_s q_s'/v

All sums are of positive terms, and none of them needs e^m: they keep the digits of the number type they are given, also
where e^m rounds to 0. Rows without sharpness (φ = 0, or all class vectors equal) have slope 0 in κ, which is quadratic
there; log κ leaves them out.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import vecdot


class MeanSharpness(torch.autograd.Function):
    """(features, logits, W, log) → mean κ, or mean log κ over all rows with nothing for those without.

    In the widest number type of the three, at least float32, under autocast too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Float[Tensor, "n d"],
        logits: Float[Tensor, "n k"],
        weight: Float[Tensor, "k d"],
        log: bool,
    ) -> Float[Tensor, ""]:
        given = features, logits, weight
        ctx.dtypes = [one.dtype for one in given]
        wide = torch.float64 if torch.float64 in ctx.dtypes else torch.float32
        points, exact, rows = (one.to(wide) for one in given)
        with torch.autocast(exact.device.type, enabled=False):
            two, places = exact.topk(2, dim=1)
            highest, second = two.split(1, dim=1)
            first, behind = places[:, :1], second - highest
            others = (exact - second).scatter_(1, first, -torch.inf).exp_()  # q
            distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
            distances *= distances
            to_top = distances[first[:, 0]]
            ratio = behind.exp()  # e^m/p_t
            p_top = 1 / (1 + ratio * others.sum(1, True))
            scale = p_top * ratio  # e^m
            spread = torch.addcmul(p_top * to_top, scale, others @ distances)  # M, right for s ≠ t
            nearby = vecdot(others, to_top)[:, None]  # A
            variance = (p_top * nearby + vecdot(others, spread)[:, None]) / 2  # v, as Σ q M = p_t A + 2 e^m B
            squares = vecdot(points, points)[:, None]
            each = (squares * variance * p_top).log_().add_(behind)
            # ∂/∂(log κ) of each row's part: 0 for rows without sharpness
            factor = (each > -torch.inf).to(wide) if log else each.exp()
            values = each.masked_fill_(factor == 0, 0.0) if log else factor
        ctx.save_for_backward(
            points, rows, others, spread, nearby, variance, squares, p_top, scale, first, factor
        )
        return values.sum() / len(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        points, rows, others, spread, nearby, variance, squares, p_top, scale, first, factor = (
            ctx.saved_tensors
        )
        tiny = torch.finfo(points.dtype).tiny
        with torch.autocast(points.device.type, enabled=False):
            share = factor * (slope / len(points))
            twice, over = 2 * share, share / variance.clamp(min=tiny)
            in_features = points * (twice / squares.clamp(min=tiny))
            in_logits = others * (spread * over - twice * scale)
            in_logits.scatter_(1, first, p_top * (nearby * over - twice))
            # half of C among the others over the batch, and C between them and the top class: C + Cᵀ is all of it
            halves = (others * (scale * over)).scatter_(1, first, 2 * p_top * over)
            pairs = others.T @ halves
            pairs = (pairs + pairs.T).fill_diagonal_(0.0)
            in_weight = pairs.sum(1, True) * rows - pairs @ rows
        to_features, to_logits, to_weight = ctx.dtypes
        return in_features.to(to_features), in_logits.to(to_logits), in_weight.to(to_weight), None
