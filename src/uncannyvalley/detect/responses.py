"""How features, softmax, margin and log-odds answer to a change of the image, where the answer is no mean over copies."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.types import Probe


def margin_rise(here: Probe, copy: Probe) -> Float[Tensor, "n"]:
    """Change of z_t − max_{s≠t} z_s of the class t that is predicted for the image, nats."""
    return objectives.margin(copy).double() - objectives.margin(here).double()


def drift(here: Probe, copies: Sequence[Probe]) -> Float[Tensor, "n"]:
    """log |mean φ(copies) − φ(image)|: what the copies agree on counts, what each does for itself averages out."""
    mean = torch.stack([one.features.double() for one in copies]).mean(dim=0)
    return (mean - here.features.double()).square().sum(dim=1).clamp(min=1e-30).log() / 2


def softmax_change(here: Probe, copies: Sequence[Probe]) -> Float[Tensor, "n"]:
    """log of the largest Σ_s |p_s(copy) − p_s(image)|, the top class's term from the others': nothing cancels."""
    at_image = here.logits.double().log_softmax(dim=1).exp()
    changes = []
    for copy in copies:
        moved = copy.logits.double().log_softmax(dim=1).exp() - at_image
        others = moved.scatter(1, here.y[:, None], 0.0)
        changes.append(others.abs().sum(dim=1) + others.sum(dim=1).abs())
    return torch.stack(changes).amax(dim=0).clamp(min=1e-300).log()


def odds_change(here: Probe, copies: Sequence[Probe]) -> Float[Tensor, "n"]:
    """max_{s≠t} of the mean over copies of the change of z_s − z_t, nats, for the class t predicted for the image."""
    own = here.y[:, None]
    change = torch.stack([one.logits.double() for one in copies]).mean(dim=0) - here.logits.double()
    return (change - change.gather(1, own)).scatter(1, own, -torch.inf).amax(dim=1)


OF_COPIES: dict[str, Callable[[Probe, Sequence[Probe]], Tensor]] = {
    "drift": drift,
    "softmax_change": softmax_change,
    "odds_change": odds_change,
}
"""Columns of all copies together, where a mean over copies would be another number."""
