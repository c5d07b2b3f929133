"""TRADES: accuracy on clean images, and the same answer all over the ball (Zhang et al. 2019, arXiv 1901.08573).

    L(θ) = 1/n Σ_i [ −log p_y(x_i) + β KL(p(x_i) ‖ p(x'_i)) ],   x'_i ≈ argmax over the ball of KL(p(x_i) ‖ p(x'))

As published: the ascent starts at x + 0.001 · normal and runs in evaluation mode, p(x) held fixed; the two terms are then
taken in training mode, with gradients through p(x) and p(x') both, first the clean batch and then the moved one. (The
authors' code runs the clean batch twice in training mode, which moves batch statistics a third time; here it is one.)
The divergence is summed in float64, where p(x') − p(x) keeps its sign for confident images.

Wrappers see the clean forward: it is where TRADES takes its cross-entropy, whose Hessian relative sharpness speaks of.

Cost of a step with m attack steps: m + 3 forwards, m + 2 backwards, of which m go to the images only.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.checks import is_number
from uncannyvalley.errors import InputError
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives.losses import cross_entropy
from uncannyvalley.train.objectives.objective import Cost, Loss, Objective
from uncannyvalley.train.perturbing import Ascent
from uncannyvalley.types import Draws

START = 0.001
"""Standard deviation of the noise that the ascent starts with: at x itself KL has no slope."""


@dataclass(frozen=True)
class TradesLoss:
    """Cross-entropy at the images, and ``beta`` times the divergence to where ``ascent`` ends."""

    ascent: Ascent
    beta: float

    def __call__(
        self, network: LiveNetwork, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], draws: Draws
    ) -> Loss:
        with network.in_evaluation(), torch.no_grad():
            fixed = network(x).logits
        start = (x + START * draws.normal(x.shape[1:]).to(x)).clamp_(0, 1)
        moved = self.ascent(network, x, start, lambda seen: divergence(fixed, seen.logits))
        seen = network(x)
        natural = cross_entropy(seen.logits, y)
        robust = divergence(seen.logits, network(moved).logits).mean().to(natural)
        total = natural + self.beta * robust
        parts = {"loss": total, "cross_entropy": natural, "divergence": robust}
        return Loss(total, {name: part.detach() for name, part in parts.items()}, seen)


def trades(
    norm: str = "linf", *, eps: float, step_size: float | None = None, steps: int = 7, beta: float = 6.0
) -> Objective:
    """TRADES, "trades"; eps and step_size (by default 2.5 eps/steps) in units of the range [0, 1], β the price of KL.

    Raises InputError for an unknown norm, eps, step_size or beta not above 0, and steps below 1.
    """
    ascent = Ascent.of(norm, eps, step_size, steps)
    if not (is_number(beta) and beta > 0):
        raise InputError(
            f"beta must be a finite number above 0 (6 in the paper), got {beta!r}; for none use erm"
        )
    settings = {"loss": "cross-entropy", "beta": float(beta)} | ascent.settings
    cost = Cost(ascent.steps + 3, ascent.steps + 2)
    return Objective("trades", settings, TradesLoss(ascent, float(beta)), cost)


def divergence(clean: Float[Tensor, "n k"], moved: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """KL(p ‖ p') = Σ p (log p − log p') of two rows of logits, nats, float64."""
    log_clean, log_moved = clean.double().log_softmax(dim=1), moved.double().log_softmax(dim=1)
    return (log_clean.exp() * (log_clean - log_moved)).sum(dim=1)
