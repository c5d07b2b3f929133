"""The largest eigenvalue of the class covariance Σ p_s (w_s − w̄)(w_s − w̄)ᵀ.

Relative to the top class t, with v_s = w_s − w_t and q_s = p_s e^{-m}, the covariance is
e^m Vᵀ(diag q − e^m q qᵀ)V over s ≠ t. The middle factor is B Bᵀ with B = R(I − c r rᵀ), r_s = √q_s,
R = diag r, c = (1 − √p_t)/Σq, so the eigenvalues are e^m times those of Bᵀ V Vᵀ B: nothing cancels.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.head import Head
from uncannyvalley.softmax import TopClassSoftmax

DENSE_CLASSES = 32
"""Up to here LAPACK on the k x k matrix is faster than Lanczos steps."""

TOLERANCE = 1e-8
"""Relative residual at which the Lanczos steps of a row end; the error of λ is its square or less."""

MAX_LANCZOS_STEPS = 64


def gram_from_top(distances: Float[Tensor, "k k"], top: Int[Tensor, "n"]) -> Float[Tensor, "n k k"]:
    """⟨w_s − w_t, w_s' − w_t⟩ = ½(D_st + D_s't − D_ss') for the top class t of each row."""
    to_top = distances[top]
    return (to_top[:, :, None] + to_top[:, None, :] - distances) / 2


def log_largest_eigenvalue(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n"]:
    """log λ_max of the class covariance, for each row; matrix-free beyond 32 classes."""
    if head.classes <= DENSE_CLASSES:
        largest = torch.linalg.eigvalsh(_small_covariance(softmax, head))[:, -1]
    else:
        largest = _largest_by_products(softmax, head)
    return softmax.log_scale + largest.clamp(min=0).log()


def _small_covariance(softmax: TopClassSoftmax, head: Head) -> Float[Tensor, "n k k"]:
    """Bᵀ V Vᵀ B, which has the covariance's eigenvalues over e^m."""
    root = softmax.weights.sqrt()
    # 1 − √p_t = −expm1(½ log p_t), exact where p_t rounds to 1
    shrink = (-torch.expm1(softmax.log_top / 2) / softmax.weight_sum)[:, None, None]
    column, row = root[:, :, None], root[:, None, :]
    scaled = column * gram_from_top(head.squared_distances, softmax.top) * row
    once = scaled - shrink * column * (row @ scaled)
    return once - shrink * (once @ column) * row


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
    return _lanczos_largest(covariance, back(weights.sqrt() * jitter))


def _lanczos_largest(apply: Callable[[Tensor], Tensor], start: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Largest eigenvalue of one symmetric operator a row, by Lanczos with full reorthogonalisation.

    ``start`` is perturbed by fixed noise, so that it is orthogonal to no eigenvector by accident.
    """
    noise = torch.Generator().manual_seed(0)
    jitter = 1 + torch.rand(start.shape[1], generator=noise, dtype=torch.float64)
    vector = torch.nn.functional.normalize(start * jitter.to(start.device), dim=1)
    basis: list[Tensor] = [vector]
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    largest = torch.zeros_like(start[:, 0])
    for _ in range(min(MAX_LANCZOS_STEPS, start.shape[1])):
        image = apply(basis[-1])
        diagonal.append((basis[-1] * image).sum(dim=1))
        known = torch.stack(basis, dim=1)
        for _ in range(2):  # twice is enough (Kahan)
            image = image - ((known @ image[:, :, None]).mT @ known).squeeze(1)
        length = image.norm(dim=1)
        tridiagonal = torch.diag_embed(torch.stack(diagonal, dim=1))
        if off_diagonal:
            beside = torch.stack(off_diagonal, dim=1)
            tridiagonal += torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        values, vectors = torch.linalg.eigh(tridiagonal)
        largest = values[:, -1]
        if bool((length * vectors[:, -1, -1].abs() <= TOLERANCE * largest).all()):
            break
        off_diagonal.append(length)
        # A row whose space is exhausted goes on with zero vectors, which change nothing.
        basis.append(torch.where(length[:, None] > 1e-14 * largest[:, None], image / length[:, None], 0.0))
    return largest
