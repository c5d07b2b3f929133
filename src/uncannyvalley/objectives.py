"""What an attack climbs: one number for each example, in a form whose gradient never rounds away.

Sign and direction of a gradient do not change when the loss is replaced by an increasing function of
it, so our attacks climb log ℓ. With g = logsumexp_{s≠y} z_s − z_y, ℓ = softplus(g) and
∂ log ℓ/∂g = σ(g)/softplus(g) lies between 1/(1+g) and 1: it does not vanish where p_y rounds to 1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.errors import InputError
from uncannyvalley.types import Probe, gap_to_others

_LINEAR_BELOW = -36.0
"""Below this, log softplus(g) = g to float64 (the difference is e^g/2 < 1e-16)."""


def log_softplus(gap: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """log(log(1 + e^g)), exact for all g; −inf never."""
    is_linear = gap < _LINEAR_BELOW
    safe = torch.where(is_linear, 0.0, gap)
    return torch.where(is_linear, gap, torch.nn.functional.softplus(safe).log())


def loss(probe: Probe) -> Float[Tensor, "n"]:
    """ℓ = −log p_y = softplus(logsumexp_{s≠y} z_s − z_y), nats."""
    return torch.nn.functional.softplus(probe.label_gap)


def log_loss(probe: Probe) -> Float[Tensor, "n"]:
    """log ℓ; the objective of our attacks and of the assist control."""
    return log_softplus(probe.label_gap)


def log_target_loss(probe: Probe) -> Float[Tensor, "n"]:
    """log of −log p_target, which targeted attacks descend."""
    if probe.target is None:
        raise InputError("a targeted objective needs target classes; pass target= (one a row)")
    return log_softplus(gap_to_others(probe.logits, probe.target))


def margin(probe: Probe) -> Float[Tensor, "n"]:
    """z_y − max_{s≠y} z_s in nats: negative where the prediction is wrong."""
    return _lead(probe.logits, probe.y)


def shortfall(probe: Probe, *, targeted: bool = False) -> Float[Tensor, "n"]:
    """Nats that an attack lacks, negative once it has succeeded: the margin, or max_{s≠target} z_s − z_target."""
    if not targeted:
        return margin(probe)
    if probe.target is None:
        raise InputError("a targeted objective needs target classes; pass target= (one a row)")
    return -_lead(probe.logits, probe.target)


def _lead(logits: Float[Tensor, "n k"], which: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """By how much the logit of a class leads all others, in float64."""
    exact = logits.double()
    others = exact.scatter(1, which[:, None], -torch.inf).amax(dim=1)
    return exact.gather(1, which[:, None]).squeeze(1) - others
