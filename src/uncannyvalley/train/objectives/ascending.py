"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412), and the gradients of a step with or without it.

    L(θ) = max over |e| ≤ ρ of base(θ + e) ≈ base(θ + ρ g/|g|),   g = ∂base/∂θ, |g| over all weights together

The step down is taken from θ with the gradient at θ + ρ g/|g|, whose own dependence on θ is left out, as published. Any
objective can be the base: adversarial images are then found anew for the moved weights. Batch statistics move only with the
first pass, at θ itself; the second leaves them as they were. Across devices g is the gradient of the whole batch.

Cost of a step: twice the base's forwards and backwards.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from uncannyvalley.checks import is_number
from uncannyvalley.errors import InputError
from uncannyvalley.train.objectives.objective import Cost, Loss, Objective


def sam(objective: Objective, rho: float = 0.05) -> Objective:
    """``objective`` descended by sharpness-aware minimisation with radius ρ in weight space: "…+sam".

    Raises InputError for a radius that is no finite number above 0, and for an objective that has it already.
    """
    if not (is_number(rho) and rho > 0):
        raise InputError(f"rho must be a finite number above 0 (0.05 in the paper), got {rho!r}")
    if objective.ascent:
        raise InputError(f"the objective {objective.name!r} has sam in it already; add it once")
    cost = Cost(2 * objective.cost.forwards, 2 * objective.cost.backwards)
    settings = {**objective.settings, "rho": float(rho)}
    return replace(objective, name=f"{objective.name}+sam", settings=settings, cost=cost, ascent=float(rho))


def take_gradients(
    objective: Objective,
    loss: Callable[[], Loss],
    backward: Callable[[Tensor], object],
    network: nn.Module,
) -> Loss:
    """The gradients of one step in ``.grad`` of the weights of ``network``, old ones dropped; the loss at the weights as they are.

    ``loss`` runs the forwards, with the same random numbers at each call, and ``backward`` fills ``.grad``. Both are
    called twice where the objective has an ascent; weights and buffers are then put back bit for bit, after errors too.
    Where the first gradient is 0 or not finite there is no way up, and it is the one that is left.
    """
    network.zero_grad(set_to_none=True)
    found = loss()
    backward(found.total)
    if not objective.ascent:
        return found
    length = _length(network)
    if length > 0 and math.isfinite(length):
        with _moved_up(network, objective.ascent / length):
            network.zero_grad(set_to_none=True)
            backward(loss().total)
    return Loss(found.total.detach(), found.parts, found.seen)


def _length(network: nn.Module) -> float:
    """|g| over all weights."""
    squares = [p.grad.double().square().sum() for p in network.parameters() if p.grad is not None]
    return float(torch.stack([one.to(squares[0].device) for one in squares]).sum().sqrt()) if squares else 0.0


@contextmanager
def _moved_up(network: nn.Module, scale: float) -> Iterator[None]:
    """Weights moved by ``scale`` times their gradients; before and after they and the buffers are the same bits."""
    moved = [(one, one.grad) for one in network.parameters() if one.grad is not None]
    held: list[Tensor] = [*(one for one, _ in moved), *network.buffers()]
    kept = [(one, one.detach().clone()) for one in held]
    try:
        with torch.no_grad():
            for weight, gradient in moved:
                weight.add_(gradient, alpha=scale)
        yield
    finally:
        with torch.no_grad():
            for one, old in kept:
                one.copy_(old)
