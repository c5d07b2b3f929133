"""Empirical risk minimisation: the mean loss of the images as they are.

    L(θ) = 1/n Σ_i ℓ(f_θ(x_i), y_i)

with ℓ the cross-entropy −log p_y, or the squared loss Σ_s (z_s − 1[s = y])² on the logits themselves (Hui and Belkin
2021, Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy, arXiv 2006.07322). A network of
squared loss has no softmax in its loss, and so no valley of confidence.

Cost of a step: 1 forward, 1 backward.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives.losses import base_loss
from uncannyvalley.train.objectives.objective import Cost, Loss, Objective
from uncannyvalley.types import Draws


@dataclass(frozen=True)
class MeanLoss:
    """The base loss ``name``, averaged over the images as they are."""

    name: str

    def __call__(
        self, network: LiveNetwork, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], draws: Draws
    ) -> Loss:
        seen = network(x)
        total = base_loss(self.name).mean(seen.logits, y)
        return Loss(total, {"loss": total.detach()}, seen)


def erm(loss: str = "cross-entropy") -> Objective:
    """Plain training on "cross-entropy" or "squared" loss; its name is then "erm" or "squared".

    Raises InputError for another loss.
    """
    base_loss(loss)
    return Objective("squared" if loss == "squared" else "erm", {"loss": loss}, MeanLoss(loss), Cost(1, 1))
