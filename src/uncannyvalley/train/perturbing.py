"""Inside a training step: images moved uphill, with nothing left behind on the network.

The steps are those of ``attacks.pgd``, without its record: the attack is taken anew in each step of training, and
ends where the training loss is taken. Inner forwards run in evaluation mode, so that they move no batch statistics and
each image is attacked for itself, and only the gradient in the images is computed: no weight gets a ``.grad``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.attacks.ball import check_ball, project, steepest
from uncannyvalley.checks import check_count
from uncannyvalley.train.live import LiveNetwork, Seen

Gain = Callable[[Seen], Float[Tensor, "n"]]
"""What the ascent climbs, one number an image."""


def step_size_of(eps: float, steps: int) -> float:
    """2.5 eps/steps, with which each point of the ball can be reached (Madry et al. 2018)."""
    return 2.5 * eps / steps


@dataclass(frozen=True)
class Ascent:
    """Projected gradient ascent in a ball around the clean images.

    norm       "linf" or "l2"
    eps        radius, in units of the input's range [0, 1]
    step_size  length of a step
    steps      forwards and backwards it takes
    """

    norm: str
    eps: float
    step_size: float
    steps: int

    @classmethod
    def of(cls, norm: str, eps: float, step_size: float | None, steps: int) -> "Ascent":
        """Checked; a step size left out is ``step_size_of`` the radius and the steps.

        Raises InputError for an unknown norm, eps or step_size not above 0, and steps below 1.
        """
        steps = check_count("steps", steps, 1)
        check_ball(norm, eps, 1.0 if step_size is None else step_size)
        return cls(
            norm, float(eps), float(step_size_of(eps, steps) if step_size is None else step_size), steps
        )

    @property
    def settings(self) -> dict[str, Any]:
        return {"norm": self.norm, "eps": self.eps, "step_size": self.step_size, "steps": self.steps}

    def __call__(
        self, network: LiveNetwork, clean: Float[Tensor, "n ..."], start: Float[Tensor, "n ..."], gain: Gain
    ) -> Float[Tensor, "n ..."]:
        """The last iterate from ``start``: x ← project(x + step_size · steepest(∂gain/∂x)), in float32 or wider."""
        x = start.detach()
        with network.in_evaluation(), torch.enable_grad():
            for _ in range(self.steps):
                x.requires_grad_()
                (uphill,) = torch.autograd.grad(gain(network(x)).sum(), x)
                moved = torch.add(x.detach(), steepest(uphill, self.norm), alpha=self.step_size)
                x = project(moved, clean, self.eps, self.norm)
        return x.detach()
