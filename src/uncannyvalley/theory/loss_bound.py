"""How much the loss can change within a distance: from gradient, sharpness and the third derivative at the head."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.errors import InputError
from uncannyvalley.head import Head

Numbers = Tensor | np.ndarray | float | int
"""One number an example, or one for all."""


def loss_change_bound(
    feature_gradient_norm: Numbers,
    variance: Numbers,
    diameter: Numbers,
    lipschitz: Numbers,
    distance: Numbers,
) -> Float[Tensor, "..."]:
    """ρ g + ρ² v/2 + ρ³ D³/(36√3) ≥ ℓ(x + δ) − ℓ(x) in nats, with ρ = L|δ|. float64, inputs broadcast.

    Along φ + u with |u| ≤ ρ the loss has slope at most g = |Wᵀ(p − e_y)| (``feature_gradient_norm``) and second
    derivative at most v = Var_p(w) = κ/|φ|² (``variance``) at the start, and third derivative at most
    D³/(6√3) anywhere: the third central moment of a number of range D. D is the head's ``diameter`` and
    ``distance`` is |δ| in L2. L must hold on the segment from x to x + δ.

    Raises InputError for negative or NaN numbers.
    """
    named = {
        "feature_gradient_norm": feature_gradient_norm, "variance": variance, "diameter": diameter,
        "lipschitz": lipschitz, "distance": distance,
    }  # fmt: skip
    gradient, spread, size, constant, length = (_checked(name, one) for name, one in named.items())
    reach = constant * length
    return reach * gradient + reach**2 * spread / 2 + reach**3 * size**3 / (36 * math.sqrt(3))


def tightness(actual_change: Numbers, bound: Numbers) -> Float[Tensor, "..."]:
    """actual/bound: at most 1; near 1 where the bound says nearly all. NaN where the bound is 0 (nothing moved)."""
    actual = torch.as_tensor(actual_change, dtype=torch.float64)
    allowed = _checked("bound", bound)
    return torch.where(allowed > 0, actual / allowed, torch.nan)


def head_diameter(head: Head) -> float:
    """D = max_{s,s'} |w_s − w_s'|; for vocabularies 2R, R the largest distance of a row from their mean."""
    if head.is_pairwise:
        return math.sqrt(head.squared_distances.max().item())
    mean = torch.stack([rows.sum(dim=0) for _, rows in head.row_chunks()]).sum(dim=0) / head.classes
    return 2 * math.sqrt(max((rows - mean).square().sum(dim=1).max().item() for _, rows in head.row_chunks()))


def _checked(name: str, value: Numbers) -> Tensor:
    number = torch.as_tensor(value, dtype=torch.float64)
    if not bool((number >= 0).all()):
        raise InputError(f"{name} must be at least 0 and not NaN; drop rows in which nothing was recorded")
    return number
