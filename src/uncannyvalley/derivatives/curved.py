"""Where the network curves between a site and its logits: Hessian-vector products, for a whole batch at once.

The loss is divided by 1 − p_y, a constant of each example, so that in the valley its derivatives stay of order 1;
the logarithm of the factor is given back (``log_scale``).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.derivatives.linearity import check_twice_differentiable, second_derivative
from uncannyvalley.derivatives.passes import logits_at
from uncannyvalley.derivatives.quantities import Quantity
from uncannyvalley.derivatives.sites import Site
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import gap_to_others

MAX_EXACT_SIZE = 4096
"""Coordinates of a block whose Hessian is formed column by column."""

MAX_EXACT_THIRD = 128
"""Coordinates of a block whose third derivative is formed."""

_EXPONENTIAL_BELOW = -36.0
"""Below this, log(1 + e^g) and all its derivatives are e^g to float64."""


class LossAt:
    """The loss of each example as a function of its own coordinates at one site, and its derivatives at 0.

    relative   coordinates E of W + R E instead of W + E
    log_scale  log(1 − p_y): every derivative here is that of the loss over 1 − p_y
    """

    def __init__(
        self,
        model: SplitModel,
        site: Site,
        x: Float[Tensor, "n ..."],
        y: Int[Tensor, "n"],
        *,
        relative: bool,
        highest: int,
    ) -> None:
        self._move = x.new_zeros(len(x), site.size(relative)).requires_grad_()
        block = self._move.reshape(len(x), *site.block(relative))
        logits = logits_at(model, site, x, site.root @ block if relative else block, order=highest)
        check_twice_differentiable(logits)
        gap = gap_to_others(logits, y)
        self.log_scale = torch.nn.functional.logsigmoid(gap.detach())
        self._highest = highest
        self.gradient = torch.autograd.grad(scaled_loss(gap).sum(), self._move, create_graph=True)[0]
        self.backwards = 1

    @property
    def size(self) -> int:
        return self._move.shape[1]

    def product(self, vectors: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """H v of each example."""
        self.backwards += 1
        total = (self.gradient * vectors).sum()
        return second_derivative(total, self._move, again=self._highest > 2)

    def third_product(self, u: Float[Tensor, "n p"], v: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """D³ℓ[u, v, ·] of each example."""
        self.backwards += 1
        return second_derivative((self.product(u) * v).sum(), self._move)

    def unit(self, position: int) -> Float[Tensor, "n p"]:
        return torch.zeros_like(self._move).index_fill_(
            1, torch.tensor([position], device=self._move.device), 1
        )

    def hessian(self) -> Float[Tensor, "n p p"]:
        """The Hessian of each example, column by column."""
        columns = [self.product(self.unit(position)).detach() for position in range(self.size)]
        return torch.stack(columns, dim=2)

    def squared_third_norm(self) -> Float[Tensor, "n"]:
        """|D³ℓ|_F² of each example, by all pairs of coordinates."""
        total = torch.zeros_like(self.log_scale)
        for first in range(self.size):
            row = self.product(self.unit(first))
            for second in range(first + 1):
                self.backwards += 1
                slab = second_derivative((row * self.unit(second)).sum(), self._move)
                total += (1 if first == second else 2) * slab.double().square().sum(dim=1)
        return total


def scaled_loss(gap: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """log(1 + e^g)/σ(g₀), where g₀ is g itself held constant: e^{g − g₀} to float64 where g₀ < −36.

    By logaddexp, since torch's softplus has no second derivative above 20.
    """
    given = gap.detach()
    is_far = given < _EXPONENTIAL_BELOW
    near = torch.where(is_far, 0.0, gap)
    scaled = torch.logaddexp(near, torch.zeros_like(near)) / torch.where(is_far, 0.0, given).sigmoid()
    return torch.where(is_far, (gap - given).exp(), scaled)


def exact_quantity(loss: LossAt, quantity: Quantity, site: Site) -> Float[Tensor, "n"]:
    """The quantity of the scaled loss, in linear scale; InputError for blocks too large to be formed."""
    limit = MAX_EXACT_THIRD if quantity.order == 3 else MAX_EXACT_SIZE
    if loss.size > limit:
        raise InputError(
            f"the network curves between layer {site.name!r} and its logits, so an exact {quantity.name} needs one "
            f"backward for each of {loss.size} weights (limit {limit}); use method='estimate', which carries its "
            "standard error"
        )
    if quantity.kind == "third_order":
        return loss.squared_third_norm().sqrt()
    if quantity.kind == "trace":
        return torch.stack(
            [loss.product(loss.unit(position))[:, position].detach() for position in range(loss.size)]
        ).double().sum(dim=0)  # fmt: skip
    return torch.linalg.eigvalsh(loss.hessian().double())[:, -1]
