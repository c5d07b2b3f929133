"""The largest eigenvalue of many symmetric operators at once, by Lanczos steps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-8
"""Relative residual at which the Lanczos steps of a row end; the error of λ is its square or less."""

MAX_STEPS = 64


class LargestEigenvalue(NamedTuple):
    """λ_max by the last step, and |A u − λ u| for its unit vector u: an eigenvalue lies within that distance."""

    value: Float[Tensor, "n"]
    residual: Float[Tensor, "n"]


def largest_by_lanczos(
    apply: Callable[[Tensor], Tensor],
    start: Float[Tensor, "n d"],
    *,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> LargestEigenvalue:
    """Largest eigenvalue of one symmetric operator a row, with full reorthogonalisation.

    ``start`` is perturbed by fixed noise, so that it is orthogonal to no eigenvector by accident. A row ends by itself when
    its residual is below ``tolerance`` of its eigenvalue, whatever the others need.
    """
    noise = torch.Generator().manual_seed(0)
    jitter = 1 + torch.rand(start.shape[1], generator=noise, dtype=torch.float64)
    vector = torch.nn.functional.normalize(start * jitter.to(start), dim=1)
    basis: list[Tensor] = [vector]
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    found = LargestEigenvalue(torch.zeros_like(start[:, 0]), torch.full_like(start[:, 0], torch.inf))
    done = torch.zeros_like(start[:, 0], dtype=torch.bool)
    for _ in range(min(max_steps, start.shape[1])):
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
        residual = length * vectors[:, -1, -1].abs()
        found = LargestEigenvalue(
            torch.where(done, found.value, values[:, -1]), torch.where(done, found.residual, residual)
        )
        size = values.abs().amax(dim=1)
        done |= residual <= tolerance * size
        if bool(done.all()):
            break
        off_diagonal.append(length)
        # A row whose space is exhausted goes on with zero vectors, which change nothing.
        exhausted = length <= 1e-14 * size
        basis.append(torch.where(exhausted[:, None], 0.0, image / length[:, None]))
    return found
