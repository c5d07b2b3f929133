"""Sharpness of squared loss at the head: no softmax in it, and so nothing that confidence could flatten."""

import math

from jaxtyping import Float
from torch import Tensor

from uncannyvalley.measures.registry import measure
from uncannyvalley.types import Probe


@measure(
    "log_squared_loss_sharpness",
    unit="log",
    order=2,
    reference="Petzka et al. 2021, Relative Flatness and Generalization, Definition 3, for Σ_s (z_s − 1[s = y])²",
    default=False,
)
def log_squared_loss_sharpness(probe: Probe) -> Float[Tensor, "n"]:
    """log κ of squared loss, κ = 2 |φ|² |W|_F².

    The Hessian of Σ_s (z_s − 1[s = y])² in W is 2 I ⊗ φφᵀ at every point: Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{ss'} = 2 |φ|² Σ_s |w_s|².
    """
    return math.log(2) + 2 * probe.log_feature_norm + probe.head.squared_norms.sum().log()
