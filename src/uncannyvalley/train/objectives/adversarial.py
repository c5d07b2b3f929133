"""Adversarial training: the mean loss of images that an attack has moved (Madry et al. 2018, arXiv 1706.06083).

    L(θ) = 1/n Σ_i ℓ(f_θ(x'_i), y_i),   x'_i ≈ argmax over |x' − x_i| ≤ eps, x' in [0, 1], of ℓ(f_θ(x'), y_i)

x' is found by m steps of projected gradient ascent from a uniform draw of the ball. Trained is on x' alone, in training
mode. The ascent runs in evaluation mode: batch statistics then come from images that are trained on, once a step, and no
image's attack depends on its neighbours. It climbs log(−log p_y), whose direction in each image is that of the
cross-entropy but does not round away where p_y rounds to 1; on squared loss it climbs that loss, for the maximum is
taken of what training descends.

Cost of a step with m attack steps: m + 1 forwards, m + 1 backwards, of which m go to the images only.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.attacks.ball import random_in_ball
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives.losses import base_loss
from uncannyvalley.train.objectives.objective import Cost, Loss, Objective
from uncannyvalley.train.perturbing import Ascent
from uncannyvalley.types import Draws


@dataclass(frozen=True)
class AdversarialLoss:
    """The base loss ``name`` at the end of ``ascent`` from a random start."""

    name: str
    ascent: Ascent

    def __call__(
        self, network: LiveNetwork, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], draws: Draws
    ) -> Loss:
        base = base_loss(self.name)
        start = random_in_ball(x, draws, self.ascent.eps, self.ascent.norm)
        moved = self.ascent(network, x, start, lambda seen: base.climbed(seen.logits, y))
        seen = network(moved)
        total = base.mean(seen.logits, y)
        return Loss(total, {"loss": total.detach()}, seen)


def pgd_at(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float | None = None,
    steps: int = 7,
    loss: str = "cross-entropy",
) -> Objective:
    """PGD adversarial training, "pgd-at"; eps and step_size (by default 2.5 eps/steps) in units of the range [0, 1].

    Raises InputError for an unknown norm or loss, eps or step_size not above 0, and steps below 1.
    """
    base_loss(loss)
    ascent = Ascent.of(norm, eps, step_size, steps)
    cost = Cost(ascent.steps + 1, ascent.steps + 1)
    return Objective("pgd-at", {"loss": loss} | ascent.settings, AdversarialLoss(loss, ascent), cost)
