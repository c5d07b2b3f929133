"""What a measurement at a site gives, and how much effort it may take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.checks import check_count
from uncannyvalley.derivatives.quantities import Quantity
from uncannyvalley.derivatives.sites import Site
from uncannyvalley.errors import InputError, unknown_name

Method = Literal["exact", "estimate"]

TOLERANCE = 0.05
BACKWARDS = 200
FEWEST_BACKWARDS = 10
"""With fewer backward passes no estimate could tell its own error."""


@dataclass(frozen=True)
class Estimate:
    """One quantity at one site, image by image, in float64 on the CPU.

    value      in linear scale; 0 where it underflows
    log_value  its logarithm, finite deep in the valley; NaN where the value is negative
    stderr     None where the value is exact; else value ± 1.96 stderr is a 95 % interval
               (of top_eigenvalue: the Lanczos residual, within which an eigenvalue lies)
    dropped    share of the class weights that were probed instead of summed, or None
    how        "class gradients", "Hessian products", "class probes", "Hutch++", "Lanczos" or "probes"
    backwards  backward passes that it took, all chunks together; an estimate's for one chunk are within Effort's
    """

    layer: str
    quantity: Quantity
    value: Float[Tensor, "n"]
    log_value: Float[Tensor, "n"]
    stderr: Float[Tensor, "n"] | None
    how: str
    backwards: int
    dropped: Float[Tensor, "n"] | None = None


@dataclass(frozen=True)
class Effort:
    """How estimates are made: relative standard error to stop at, most backward passes, seed of the probes."""

    method: Method = "exact"
    tolerance: float = TOLERANCE
    backwards: int = BACKWARDS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("exact", "estimate"):
            raise unknown_name("method", self.method, ["exact", "estimate"])
        if not 0 < self.tolerance < 1:
            raise InputError(
                f"tolerance is a relative standard error between 0 and 1, got {self.tolerance!r}; write 0.05 for 5 %"
            )
        check_count("backwards", self.backwards, FEWEST_BACKWARDS)
        check_count("seed", self.seed, 0)


def scaled_back(
    site: Site,
    quantity: Quantity,
    value: Float[Tensor, "n"],
    stderr: Float[Tensor, "n"] | None,
    log_scale: Float[Tensor, "n"],
    how: str,
    backwards: int,
    dropped: Float[Tensor, "n"] | None = None,
) -> Estimate:
    """From a loss that was divided by e^log_scale back to the loss."""
    scale, value = log_scale.exp(), value.double()
    error = None if stderr is None else stderr.double() * scale
    log_value = value.log() + log_scale
    return Estimate(site.name, quantity, value * scale, log_value, error, how, backwards, dropped)


def joined(ones: Sequence[Estimate]) -> Estimate:
    """The chunks of one measurement as one, on the CPU."""

    def together(field: str) -> Tensor | None:
        values = [getattr(one, field) for one in ones]
        if all(value is None for value in values):
            return None
        # NaN for a chunk that was measured another way, where the field means nothing
        filled = [
            torch.full_like(one.value, torch.nan) if value is None else value
            for one, value in zip(ones, values, strict=True)
        ]
        return torch.cat(filled).cpu()

    first = ones[0]
    return Estimate(
        first.layer, first.quantity,
        torch.cat([one.value for one in ones]).cpu(), torch.cat([one.log_value for one in ones]).cpu(),
        together("stderr"), first.how, sum(one.backwards for one in ones), together("dropped"),
    )  # fmt: skip
