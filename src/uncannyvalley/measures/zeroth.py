"""Order zero: the loss, how sure the network is, and how far the input moved. Cost: a softmax."""

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.measures.registry import measure
from uncannyvalley.types import Probe


@measure("loss", unit="nats", order=0)
def loss(probe: Probe) -> Float[Tensor, "n"]:
    """ℓ = −log p_y."""
    return objectives.loss(probe)


@measure("log_loss", unit="log nats", order=0)
def log_loss(probe: Probe) -> Float[Tensor, "n"]:
    """log ℓ, exact where ℓ rounds to 0 in float32."""
    return probe.once(objectives.log_loss)


@measure("log_error_probability", unit="log", order=0)
def log_error_probability(probe: Probe) -> Float[Tensor, "n"]:
    """log(1 − p_y) = log σ(logsumexp_{s≠y} z_s − z_y)."""
    return torch.nn.functional.logsigmoid(probe.label_gap)


@measure("margin", unit="nats", order=0)
def margin(probe: Probe) -> Float[Tensor, "n"]:
    """z_y − max_{s≠y} z_s; negative where the prediction is wrong."""
    return objectives.margin(probe)


@measure("logit_gap", unit="nats", order=0)
def logit_gap(probe: Probe) -> Float[Tensor, "n"]:
    """z_t − max_{s≠t} z_s ≥ 0, the margin of the predicted class: needs no label."""
    return probe.softmax.gap


@measure("confidence", unit="probability", order=0)
def confidence(probe: Probe) -> Float[Tensor, "n"]:
    """p_t = max_s p_s."""
    return probe.softmax.log_top.exp()


@measure("entropy", unit="nats", order=0)
def entropy(probe: Probe) -> Float[Tensor, "n"]:
    """−Σ p log p."""
    return probe.once(_log_entropy).exp()


@measure("log_entropy", unit="log nats", order=0)
def log_entropy(probe: Probe) -> Float[Tensor, "n"]:
    """log(−Σ p log p), exact where the entropy rounds to 0."""
    return probe.once(_log_entropy)


def _log_entropy(probe: Probe) -> Float[Tensor, "n"]:
    """m + log(Σ_{s≠t} q_s (−log p_s) + p_t (−log p_t) e^{-m}): all terms are positive.

    With u = 1 − p_t over p_t = e^{-gap} Σq, −log p_t = log1p(u), and log1p(u)/u stays 1 when u rounds to 0.
    """
    softmax = probe.softmax
    weights, log_scale = softmax.weights, softmax.log_scale
    # not xlogy: its slope at the top class's weight 0 is infinite, and attacks follow this
    surprise = weights * (weights.clamp(min=torch.finfo(weights.dtype).tiny).log() + log_scale[:, None])
    odds = (-softmax.gap).exp() * softmax.weight_sum
    ratio = torch.where(odds > 0, torch.log1p(odds) / odds, 1.0)
    own = ratio * softmax.weight_sum  # p_t · log1p(u) / (p_t e^{-gap}), as e^m = p_t e^{-gap}
    return log_scale + (own - surprise.sum(dim=1)).log()


@measure("log_gini", unit="log", order=0, reference="Var_p(w) = ½ Σ p p' |w − w'|²")
def log_gini(probe: Probe) -> Float[Tensor, "n"]:
    """log(1 − Σ p²): the share of confidence in log κ."""
    return probe.softmax.log_gini


@measure("feature_norm", unit="features", order=0)
def feature_norm(probe: Probe) -> Float[Tensor, "n"]:
    """|φ|."""
    return probe.log_feature_norm.exp()


@measure("distance_linf", unit="pixels", order=0)
def distance_linf(probe: Probe) -> Float[Tensor, "n"]:
    """max |x − x_clean|, in units of the input's range [0, 1]."""
    moved = probe.once(_moved)
    return moved.abs().amax(dim=tuple(range(1, moved.dim())))


@measure("distance_l2", unit="pixels", order=0)
def distance_l2(probe: Probe) -> Float[Tensor, "n"]:
    """|x − x_clean|, in units of the input's range [0, 1]."""
    moved = probe.once(_moved)
    return torch.linalg.vector_norm(moved, dim=tuple(range(1, moved.dim())))


def _moved(probe: Probe) -> Float[Tensor, "n ..."]:
    return probe.x - probe.clean
