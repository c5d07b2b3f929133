"""Derivatives of the loss along one direction of each example: D²ℓ[v, v] and D³ℓ[v, v, v].

Along v the loss is a function of one number a row, ℓ(t) at W + t v (or x + t v). Its derivatives are taken by nested
modes of automatic differentiation: nothing of the size of a Hessian is formed, for any layer of any size.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.derivatives.curved import scaled_loss
from uncannyvalley.derivatives.linearity import check_twice_differentiable, second_derivative
from uncannyvalley.derivatives.passes import check_ownership, logits_at
from uncannyvalley.derivatives.sites import Site, find_site
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import SplitModel, split_for
from uncannyvalley.types import gap_to_others

CHUNK_ROWS = 64


def directional_derivative(
    net: nn.Module | SplitModel,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    layer: str,
    direction: Tensor,
    order: int = 2,
) -> Float[Tensor, "n"]:
    """D^order ℓ[v, …, v] of each image along ``direction``, in nats over the direction's length to that power.

    layer      name of a layer of ``net``, or "input"
    direction  v, shaped as the layer's weight (or as one image), or one of them for each image in front
    order      1, 2 or 3

    Returns float64 (n,) on the CPU. Raises InputError for other shapes and orders.

    Example
    -------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> directional_derivative(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), "1", torch.ones(3, 4)).shape
    torch.Size([2])
    """
    model, x, y = split_for(net, x, y, prepare=False)
    if order not in (1, 2, 3):
        raise InputError(f"order must be 1, 2 or 3, got {order!r}")
    site = find_site(model, layer)
    check_ownership(model, [site])
    along = _blocks(model, site, direction, len(x))
    parts = []
    for first in range(0, len(x), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        images, labels = x[rows].to(model.device, model.dtype).contiguous(), y[rows].to(model.device)
        parts.append(derivative_along(model, site, images, labels, along[rows], order).cpu())
    return torch.cat(parts)


def _blocks(model: SplitModel, site: Site, direction: Tensor, rows: int) -> Float[Tensor, "n g r c"]:
    """The direction as one block of coordinates for each image."""
    one = model.sample_shape if site.module is None else tuple(site.module.weight.shape)
    if tuple(direction.shape) not in (one, (rows, *one)):
        raise InputError(
            f"direction at {site.name!r} must have shape {one}, or {(rows, *one)} with one for each image; "
            f"got {tuple(direction.shape)}"
        )
    blocks = direction.detach().to(model.device, model.dtype).reshape(-1, *site.shape)
    return blocks.expand(rows, *site.shape)


@torch.enable_grad()  # measures are read without gradients
def derivative_along(
    model: SplitModel,
    site: Site,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    along: Float[Tensor, "n g r c"],
    order: int,
) -> Float[Tensor, "n"]:
    """D^order ℓ of one batch along a block of coordinates for each example."""
    time = x.new_zeros(len(x)).requires_grad_()
    logits = logits_at(model, site, x, time[:, None, None, None] * along, order=order)
    if order > 1:
        check_twice_differentiable(logits)
    gap = gap_to_others(logits, y)
    value = scaled_loss(gap)
    for nth in range(order):
        value = second_derivative(value.sum(), time, again=nth + 1 < order)
    return value.detach().double() * torch.nn.functional.logsigmoid(gap.detach()).exp()
