"""Base losses of a forward: their mean, which training descends, and one number an image, which inner attacks climb."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from uncannyvalley.errors import unknown_name
from uncannyvalley.objectives import log_softplus
from uncannyvalley.types import gap_to_others

Logits = Float[Tensor, "n k"]
Labels = Int[Tensor, "n"]


def at_least_float32(values: Tensor) -> Tensor:
    """Losses of half-precision logits are taken in float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cross_entropy(logits: Float[Tensor, "n k"], y: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """Mean of −log p_y, nats."""
    return functional.cross_entropy(at_least_float32(logits), y)


def log_cross_entropy(logits: Float[Tensor, "n k"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """log(−log p_y): uphill where cross-entropy is, and its slope does not round away where p_y rounds to 1."""
    return log_softplus(gap_to_others(logits, y))


def each_squared(logits: Float[Tensor, "n k"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Σ_s (z_s − 1[s = y])²."""
    logits = at_least_float32(logits)
    return (logits - functional.one_hot(y, logits.shape[1]).to(logits)).square().sum(dim=1)


def squared(logits: Float[Tensor, "n k"], y: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """Mean of Σ_s (z_s − 1[s = y])², the sum over classes (Hui and Belkin 2021, arXiv 2006.07322, without rescaling)."""
    return each_squared(logits, y).mean()


class BaseLoss(NamedTuple):
    """mean: (logits, y) → a scalar; climbed: (logits, y) → one number an image, increasing in its loss."""

    mean: Callable[[Tensor, Tensor], Tensor]
    climbed: Callable[[Tensor, Tensor], Tensor]


LOSSES: dict[str, BaseLoss] = {
    "cross-entropy": BaseLoss(cross_entropy, log_cross_entropy),
    "squared": BaseLoss(squared, each_squared),
}


def base_loss(name: str) -> BaseLoss:
    """The loss ``name``; InputError for an unknown one."""
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name]
