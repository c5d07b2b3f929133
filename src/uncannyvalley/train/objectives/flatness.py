"""Relative flatness as a regulariser: the sharpness of the head, in closed form, is added to any objective.

    L(θ) = base(θ) + weight · 1/n Σ_i κ_i          or          base(θ) + weight · 1/n Σ_i log κ_i

κ = |φ|² Var_p(w) = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr ∂²ℓ/∂w_s∂w_s' is the relative sharpness of Petzka et al. 2021 (Relative
Flatness and Generalization, arXiv 2001.00939) at the head: with the cross-entropy's Hessian (diag p − p pᵀ) ⊗ φφᵀ it needs no
second derivative. It was proposed as a regulariser by Adilova et al. 2023 (FAM: Relative Flatness Aware Minimization,
arXiv 2307.02337); their released code detaches the Hessian, so that no layer below learns of it. Here nothing is
detached: the gradient is that of differentiating through the materialised Hessian, in the head and in the body. Mean κ
is also κ of the mean loss, as the Hessian is linear in the loss.

It is taken of the forward that the base objective was taken of (adversarial images for "pgd-at", clean ones for
"trades"). On squared loss κ is that of squared loss, 2|φ|²|W|_F². Rows whose sharpness is 0, with all features 0 or all
class vectors equal, have nothing to lose: log κ leaves them out, and the mean is still over the batch.

Both parts can win over the base: κ is least, and log κ unbounded below, where all features vanish or one class has all the
confidence. Choose the weight on held-out images, from small ones upwards; a weight that is too large leaves a network of dead
features at chance.

Cost of a step: no forward and no backward more than the base's, and O(n k² + k² d) operations at the head.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.checks import is_number
from uncannyvalley.errors import InputError
from uncannyvalley.head import Head
from uncannyvalley.measures.second import log_relative_sharpness
from uncannyvalley.measures.squared import log_squared_loss_sharpness
from uncannyvalley.train.live import LiveNetwork, Seen
from uncannyvalley.train.objectives.losses import at_least_float32
from uncannyvalley.train.objectives.objective import Loss, Objective, TrainingLoss
from uncannyvalley.train.objectives.slopes import MeanSharpness
from uncannyvalley.types import Draws, Probe


@dataclass(frozen=True)
class FlatLoss:
    """The loss ``base`` plus ``weight`` times the mean sharpness, or log sharpness, of the forward that it has seen."""

    base: TrainingLoss
    weight: float
    log: bool
    squared: bool

    def __call__(
        self, network: LiveNetwork, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], draws: Draws
    ) -> Loss:
        base = self.base(network, x, y, draws)
        sharpness = mean_sharpness(base.seen, network.head, y, log=self.log, squared=self.squared)
        total = torch.add(base.total, sharpness.to(base.total), alpha=self.weight)
        return Loss(total, base.parts | {_part(self.log): sharpness.detach()}, base.seen)


def _part(log: bool) -> str:
    return "log_sharpness" if log else "sharpness"


def flat(objective: Objective, weight: float, log: bool = False) -> Objective:
    """``objective`` with weight · mean κ added, or weight · mean log κ: "…+flatness", "…+log-flatness".

    Raises InputError for a weight that is negative or no finite number, and for an objective that is regularised already.
    """
    if not (is_number(weight) and weight >= 0):
        raise InputError(
            f"the weight of flatness must be a finite number, 0 or more, got {weight!r}; small ones first: 0.001, 0.01, 0.1"
        )
    if "flatness" in objective.settings:
        raise InputError(f"the objective {objective.name!r} has flatness in it already; add it once")
    loss = FlatLoss(objective.loss, float(weight), log, objective.settings.get("loss") == "squared")
    settings = {**objective.settings, "flatness": _part(log), "weight": float(weight)}
    name = objective.name + ("+log-flatness" if log else "+flatness")
    return replace(objective, name=name, settings=settings, loss=loss)


def mean_sharpness(
    seen: Seen, head: Head, y: Int[Tensor, "n"], *, log: bool, squared: bool
) -> Float[Tensor, ""]:
    """Mean κ of a forward, or mean log κ with nothing for rows without any; differentiable in everything, once.

    Rows without sharpness add 0 to κ, and a slope of 0: there κ is at its least, quadratically.
    """
    if head.is_pairwise and not squared:
        return MeanSharpness.apply(seen.features, seen.logits, head.weight, log)
    measured = log_squared_loss_sharpness if squared else log_relative_sharpness
    with torch.autocast(seen.logits.device.type, enabled=False):  # it would round the sums to half precision
        values = measured(_probe(seen, head, y))
        there = values.isfinite()
        if not bool(there.all()):  # the slope of log 0 is NaN to autograd, even where it is masked afterwards
            if not bool(there.any()):
                return 0.0 * seen.logits.double().sum()
            values = measured(_probe(Seen(seen.features[there], seen.logits[there]), head, y[there]))
        return (values if log else values.exp()).sum() / len(y)


def _probe(seen: Seen, head: Head, y: Int[Tensor, "n"]) -> Probe:
    """A probe of live tensors, so that measures of it carry their history. Its images are not read."""
    features, logits = at_least_float32(seen.features), at_least_float32(seen.logits)
    owner = torch.arange(len(y), device=y.device)
    return Probe(features, features, y, None, owner, features, logits, head)
