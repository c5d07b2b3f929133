"""Steps that climb one function and hold another: the steepest step at which the held one changes as asked.

To first order. In linf it is the linear programme max ⟨a, d⟩ with ⟨g, d⟩ = c and each pixel within its limits: d is
at the limits by the signs of a − λg, and λ follows from sorting a_i/g_i. The limits hold the ball and the box, so no
projection spoils the equality. In l2 it is the part of a that is orthogonal to g, plus what c asks along g.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.attacks.ball import per_row, steepest


def inner(a: Float[Tensor, "n ..."], b: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
    """⟨a, b⟩ of each row, in float64."""
    return (a.double() * b.double()).flatten(1).sum(dim=1)


def without(direction: Float[Tensor, "n ..."], held: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """The part of ``direction`` that is orthogonal to ``held``; zero where nothing but rounding is left."""
    along = inner(direction, held) / inner(held, held).clamp(min=torch.finfo(torch.float64).tiny)
    rest = direction.double() - per_row(along, direction) * held.double()
    keeps = inner(rest, rest) > 1e-12 * inner(direction, direction)  # float32 gradients: parallel within 1e-6
    return torch.where(per_row(keeps, direction), rest, 0.0).to(direction)


def tangent_step(
    climbed: Float[Tensor, "n ..."],
    held: Float[Tensor, "n ..."],
    change: Float[Tensor, "n"],
    length: Float[Tensor, "n"],
    x: Float[Tensor, "n ..."],
    clean: Float[Tensor, "n ..."],
    eps: float,
    norm: str,
) -> Float[Tensor, "n ..."]:
    """The step d, |d| ≤ ``length``, of largest ⟨climbed, d⟩ with ⟨held, d⟩ = ``change``, or as near as d can come.

    climbed, held  gradients at ``x``           change  of the held function, in its units
    In linf x + d stays in the ball of radius ``eps`` around ``clean`` and in [0, 1]; in l2 it must be projected.
    """
    if norm == "linf":
        reach = per_row(length, x)
        lower = torch.maximum(torch.maximum(clean - eps, torch.zeros_like(x)) - x, -reach).clamp(max=0)
        upper = torch.minimum(torch.minimum(clean + eps, torch.ones_like(x)) - x, reach).clamp(min=0)
        found = _at_limits(climbed.flatten(1), held.flatten(1), change, lower.flatten(1), upper.flatten(1))
        return found.view_as(x).to(x)
    size = inner(held, held).sqrt()
    most = length.double()
    along = torch.where(size > 0, change / size.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    along = along.clamp(-most, most)
    across = (most.square() - along.square()).clamp(min=0).sqrt()
    step = per_row(along, x) * steepest(held.double(), norm)
    return (step + per_row(across, x) * steepest(without(climbed, held).double(), norm)).to(x)


def _at_limits(
    climbed: Float[Tensor, "n p"],
    held: Float[Tensor, "n p"],
    change: Float[Tensor, "n"],
    lower: Float[Tensor, "n p"],
    upper: Float[Tensor, "n p"],
) -> Float[Tensor, "n p"]:
    """max ⟨climbed, d⟩ with ⟨held, d⟩ = change and lower ≤ d ≤ upper, each row by one sort.

    From λ = −∞, where each pixel moves with ``held``, up: pixel i turns at λ = climbed_i/held_i and takes
    |held_i|(upper_i − lower_i) off ⟨held, d⟩. The pixel at which it would pass ``change`` stops on its way.
    """
    a, g, lower, upper = (one.double() for one in (climbed, held, lower, upper))
    free = g == 0
    with_held = torch.where(g > 0, upper, lower)
    against = torch.where(g > 0, lower, upper)
    turns = torch.where(free, torch.inf, a / torch.where(free, 1.0, g))
    order = turns.argsort(dim=1, stable=True)
    cost = (g.abs() * (upper - lower)).gather(1, order)
    spent = cost.cumsum(dim=1)
    excess = ((g * with_held).sum(dim=1) - change)[:, None]  # what turning pixels must take off
    share = ((excess - (spent - cost)) / cost.clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)
    turned = torch.zeros_like(g).scatter(1, order, share)
    found = with_held + turned * (against - with_held)
    unheld = torch.where(a > 0, upper, torch.where(a < 0, lower, 0.0))
    return torch.where(free, unheld, found)
