"""The largest eigenvalue of the class covariance Σ p_s (w_s − w̄)(w_s − w̄)ᵀ.

Relative to the top class t, with v_s = w_s − w_t and q_s = p_s e^{-m}, the covariance is
e^m Vᵀ(diag q − e^m q qᵀ)V over s ≠ t. The middle factor is B Bᵀ with B = R(I − c r rᵀ), r_s = √q_s,
R = diag r, c = (1 − √p_t)/Σq, so the eigenvalues are e^m times those of Bᵀ V Vᵀ B: nothing cancels.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.head import Head
from uncannyvalley.measures.lanczos import largest_by_lanczos
from uncannyvalley.softmax import TopClassSoftmax

DENSE_CLASSES = 32
"""Up to here LAPACK on the k x k matrix is faster than Lanczos steps."""


def gram_from_top(distances: Float[Tensor, "k k"], top: Int[Tensor, "n"]) -> Float[Tensor, "n k k"]:
    """⟨w_s − w_t, w_s' − w_t⟩ = ½(D_st + D_s't − D_ss') for the top class t of each row."""
    to_top = distances[top]
    return (to_top[:, :, None] + to_top[:, None, :] - distances) / 2


def log_largest_eigenvalue(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n"]:
    """log λ_max of the class covariance, for each row; matrix-free beyond 32 classes."""
    if head.classes <= DENSE_CLASSES:
        return log_largest_of_gram(softmax, gram_from_top(head.squared_distances, softmax.top))
    return softmax.log_scale + _largest_by_products(softmax, head).clamp(min=0).log()


def log_largest_of_gram(softmax: TopClassSoftmax, gram: Float[Tensor, "n c c"]) -> Float[Tensor, "n"]:
    """log λ_max of the covariance of any class vectors, from their inner products relative to the top class.

    Only ``weights``, ``log_top`` and ``log_scale`` of ``softmax`` are read; the top class itself may be left out.
    """
    root = softmax.weights.clamp(min=torch.finfo(torch.float64).tiny).sqrt()  # at 0 its slope is infinite
    # 1 − √p_t = −expm1(½ log p_t), exact where p_t rounds to 1
    shrink = (-torch.expm1(softmax.log_top / 2) / softmax.weight_sum)[:, None, None]
    column, row = root[:, :, None], root[:, None, :]
    scaled = column * gram * row
    once = scaled - shrink * column * (row @ scaled)
    covariance = once - shrink * (once @ column) * row  # Bᵀ V Vᵀ B
    return softmax.log_scale + torch.linalg.eigvalsh(covariance)[:, -1].clamp(min=0).log()


def _largest_by_products(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n"]:
    """By Lanczos steps on u → Vᵀ(diag q − e^m q qᵀ)V u: two products with W each, memory O(n·(k + steps·d))."""
    top_rows = head.weight[softmax.top].double()
    weights, scale = softmax.weights, softmax.scale[:, None]

    def back(amounts: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        return head.combine(amounts) - amounts.sum(1, True) * top_rows

    def covariance(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        along = head.apply(vectors) - (top_rows * vectors).sum(1, True)
        return back(weights * (along - scale * (weights * along).sum(1, True)))

    # weights jittered by fixed noise, so that the start is orthogonal to no eigenvector by accident
    noise = torch.Generator().manual_seed(0)
    jitter = 1 + torch.rand(head.classes, generator=noise, dtype=torch.float64).to(weights.device)
    return largest_by_lanczos(covariance, back(weights.sqrt() * jitter)).value
