"""The quantities of a site, by name: which coordinates, and what is taken of the Hessian or third derivative there."""

from dataclasses import dataclass
from typing import Literal

from uncannyvalley.errors import unknown_name

Kind = Literal["trace", "top_eigenvalue", "third_order"]


@dataclass(frozen=True)
class Quantity:
    """What is measured at a site.

    symbol    as tables show it
    kind      trace or largest eigenvalue of the Hessian, or Frobenius norm of the third derivative
    relative  in coordinates E of W + R E, R Rᵀ = W Wᵀ, so that rescaled weights give the same number
    order     of the derivative
    """

    name: str
    symbol: str
    kind: Kind
    relative: bool
    order: int
    unit: str
    formula: str


QUANTITIES = {
    one.name: one
    for one in (
        Quantity("trace", "Tr H", "trace", False, 2, "nats/weight²", "Tr ∂²ℓ/∂W²"),
        Quantity("relative_sharpness", "κ", "trace", True, 2, "nats", "κ = Σ ⟨w_s, w_s'⟩ Tr H_ss'"),
        Quantity("top_eigenvalue", "λ", "top_eigenvalue", False, 2, "nats/weight²", "λ_max of ∂²ℓ/∂W²"),
        Quantity(
            "relative_top_eigenvalue",
            "λ rel.",
            "top_eigenvalue",
            True,
            2,
            "nats",
            "λ_max of the Hessian in E at W + R E, R Rᵀ = W Wᵀ",
        ),
        Quantity("third_derivative", "|D³|", "third_order", False, 3, "nats/weight³", "|∂³ℓ/∂W³|_F"),
        Quantity(
            "third_order", "τ", "third_order", True, 3, "nats", "τ = |∂³ℓ/∂E³|_F at W + R E, R Rᵀ = W Wᵀ"
        ),
    )
}
"""At the head the relative ones are the measures log_relative_sharpness, log_top_eigenvalue and log_third_order."""


def quantity_named(name: str) -> Quantity:
    """The quantity of that name; InputError for another."""
    if name not in QUANTITIES:
        raise unknown_name("quantity", name, QUANTITIES)
    return QUANTITIES[name]
