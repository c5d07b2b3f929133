"""First order: gradients of the loss, in the input and in the features."""

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.errors import InputError
from uncannyvalley.measures.registry import measure
from uncannyvalley.types import LOG_LOSS_GRAD, Probe


def _log_input_gradient(probe: Probe) -> Float[Tensor, "n"]:
    """log |∂ℓ/∂x| = log ℓ + log |∂ log ℓ/∂x|; scaled by its largest entry, so that no square underflows."""
    if probe.log_loss_grad is None:
        raise InputError("input gradient norms need a probe with log_loss_grad; add it to needs")
    gradient = probe.log_loss_grad
    image = tuple(range(1, gradient.dim()))
    largest = gradient.abs().amax(dim=image, keepdim=True)
    length = torch.linalg.vector_norm(gradient / torch.where(largest > 0, largest, 1.0), dim=image)
    return probe.once(objectives.log_loss) + length.double().log() + largest.flatten().double().log()


@measure("input_gradient_norm", unit="nats/pixel", order=1, needs=[LOG_LOSS_GRAD])
def input_gradient_norm(probe: Probe) -> Float[Tensor, "n"]:
    """|∂ℓ/∂x|."""
    return probe.once(_log_input_gradient).exp()


@measure("log_input_gradient_norm", unit="log nats/pixel", order=1, needs=[LOG_LOSS_GRAD])
def log_input_gradient_norm(probe: Probe) -> Float[Tensor, "n"]:
    """log |∂ℓ/∂x|, finite where the gradient rounds to 0."""
    return probe.once(_log_input_gradient)


def _log_feature_gradient(probe: Probe) -> Float[Tensor, "n"]:
    """log(1 − p_y) + log |Wᵀ(r − e_y)|, where r is the softmax over the classes s ≠ y."""
    others = probe.logits.double().scatter(1, probe.y[:, None], -torch.inf).softmax(dim=1)
    pull = others.scatter(1, probe.y[:, None], -1.0)
    log_error = torch.nn.functional.logsigmoid(probe.label_gap)
    return log_error + probe.head.combine(pull).norm(dim=1).log()


@measure("feature_gradient_norm", unit="nats/feature", order=1)
def feature_gradient_norm(probe: Probe) -> Float[Tensor, "n"]:
    """|∂ℓ/∂φ| = |Wᵀ(p − e_y)|."""
    return probe.once(_log_feature_gradient).exp()


@measure("log_feature_gradient_norm", unit="log nats/feature", order=1)
def log_feature_gradient_norm(probe: Probe) -> Float[Tensor, "n"]:
    """log |∂ℓ/∂φ|, finite where the gradient rounds to 0."""
    return probe.once(_log_feature_gradient)
