"""Walks along which the margin stays and something else is driven: what is left of sharpness without confidence?"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.attacks.ball import check_ball, per_row, project, random_point
from uncannyvalley.attacks.band import Score, differentiable_score, named, watched
from uncannyvalley.attacks.stopping import check_finite
from uncannyvalley.attacks.tangent import tangent_step
from uncannyvalley.errors import InputError
from uncannyvalley.types import CONSTRAINT_GRAD, OBJECTIVE_GRAD, Attack, Draws, Probe

TRIALS = 6
"""Steps that are tried, each half as long as the one before, until the margin holds; else the row stays."""


class _State(NamedTuple):
    """reference: margin of the clean image; share: of the step size, for each row."""

    reference: Float[Tensor, "n"]
    share: Float[Tensor, "n"]


def _check_band(band: float, *, targeted: bool) -> float:
    if targeted:
        raise InputError(
            "isoconfidence holds the margin of the true class and aims at none; leave targeted out"
        )
    band = check_finite("band", band)
    if band == 0:
        raise InputError("band must be above 0 nats: no step keeps the margin to the last digit")
    return band


def isoconfidence(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    push: Score = "log_relative_sharpness",
    up: bool = True,
    band: float = 0.5,
    random_start: bool = False,
    targeted: bool = False,
) -> Attack:
    """Drives a function (log κ of a layer) up or down while the margin stays at the clean image's.

    push  name of a measure, a Measure, or a differentiable function of a probe:
          ``derivatives.layer_objective.layer_sharpness(model, layer)`` for an inner layer
    up    climb it, or (False) descend it
    band  nats by which z_y − max_{s≠y} z_s may leave its clean value

    A step is the steepest for ``push`` at which the margin, to first order, returns to its clean value. Each row's step is
    tried by a forward and halved until the margin is inside the band, or no further from it than it was; a row for
    which no trial succeeds stays. So the band holds at every point of a walk that starts clean. From a random start the
    margin returns first. The label therefore never changes where the clean margin exceeds the band.
    Cost of a step: two backwards, and a forward for each trial, one or two as a rule.
    Raises InputError for a push without a gradient in the image, and as ``pgd`` does.
    """
    check_ball(norm, eps, step_size)
    band = _check_band(band, targeted=targeted)
    pushed = differentiable_score(push, "push")
    settings = {
        "norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start,
        **named(pushed, "push"), "up": up, "band": band,
    }  # fmt: skip

    def init(probe: Probe, draws: Draws) -> _State:
        reference = watched(probe, objectives.margin)
        return _State(reference, torch.ones_like(reference))

    def step(
        probe: Probe, state: _State, prober: Callable[..., Probe], draws: Draws
    ) -> tuple[Tensor, _State]:
        assert probe.objective_grad is not None
        assert probe.constraint_grad is not None
        climbed = probe.objective_grad if up else -probe.objective_grad
        away = watched(probe, objectives.margin) - state.reference
        limit = away.abs().clamp(min=band)
        x, share = probe.x, state.share
        pending = torch.ones_like(share, dtype=torch.bool)
        for trial in range(TRIALS):
            moved = tangent_step(
                climbed, probe.constraint_grad, -away, share * step_size, probe.x, probe.clean, eps, norm
            )
            tried = project(probe.x + moved, probe.clean, eps, norm)
            holds = (watched(prober(tried), objectives.margin) - state.reference).abs() <= limit
            x = torch.where(per_row(pending & holds, x), tried, x)
            if trial == 0:
                share = torch.where(holds, (share * 2).clamp(max=1), share)
            pending = pending & ~holds
            share = torch.where(pending, share / 2, share)
            if not bool(pending.any()):
                break
        return x, _State(state.reference, share)

    start = partial(random_point, eps=eps, norm=norm) if random_start else None
    needs = frozenset([OBJECTIVE_GRAD, CONSTRAINT_GRAD])
    return Attack("isoconfidence", settings, pushed, needs, init, step, start, constraint=objectives.margin)
