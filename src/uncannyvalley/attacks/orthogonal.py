"""Orthogonal PGD: two objectives, of which each step follows the one not yet met without spending the other."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.attacks.ball import check_ball, per_row, project, random_point, steepest
from uncannyvalley.attacks.band import Band, Score
from uncannyvalley.attacks.stopping import check_finite, fooled, stop_settings, stop_when_fooled
from uncannyvalley.attacks.tangent import without
from uncannyvalley.errors import unknown_name
from uncannyvalley.types import CONSTRAINT_GRAD, OBJECTIVE_GRAD, Attack, Draws, Probe

STRATEGIES = ("orthogonal", "selective")


def orthogonal(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    score: Score = "log_relative_sharpness",
    low: float = -1.0,
    high: float = 1.0,
    relative: bool = True,
    margin: float = 0.0,
    strategy: str = "orthogonal",
    random_start: bool = False,
    targeted: bool = False,
    stop: float | None = None,
) -> Attack:
    """Orthogonal PGD against the label and a score (log κ) at once (Bryniarski et al. 2021).

    While the label is right each step climbs the log loss; once it is wrong by ``margin`` nats and the score lies outside
    its band, it moves the score towards it; where both hold it stays. ``strategy`` "selective" follows these gradients as
    they are, "orthogonal" their part that is orthogonal to the other's gradient. Steps have one length. The band and
    ``stop`` are those of ``evading``. Cost of a step: a forward and two backwards.

    At the head the two gradients are nearly parallel (log κ is a function of the logits), so little is left of either
    when the other is taken out.
    Raises InputError for an unknown strategy, and as ``evading`` does.
    """
    check_ball(norm, eps, step_size)
    if strategy not in STRATEGIES:
        raise unknown_name("strategy", strategy, STRATEGIES)
    band = Band.of(score, low, high, relative)
    margin = check_finite("margin", margin)
    objective = objectives.log_target_loss if targeted else objectives.log_loss
    settings = {
        "norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start, "targeted": targeted,
        **band.settings, "margin": margin, "strategy": strategy, **stop_settings(stop),
    }  # fmt: skip

    def init(probe: Probe, draws: Draws) -> Float[Tensor, "n"]:
        return band.reference(probe)

    def step(
        probe: Probe, reference: Tensor, prober: Callable[..., Probe], draws: Draws
    ) -> tuple[Tensor, Tensor]:
        assert probe.objective_grad is not None
        assert probe.constraint_grad is not None
        label = -probe.objective_grad if targeted else probe.objective_grad
        side = band.side(band.from_centre(probe, reference))
        towards = per_row(-side, probe.x).to(probe.x) * probe.constraint_grad
        if strategy == "orthogonal":
            label, towards = without(label, probe.constraint_grad), without(towards, label)
        is_fooled = fooled(probe, targeted=targeted, by=margin)
        direction = torch.where(per_row(is_fooled, probe.x), towards, label)
        x = torch.add(probe.x, steepest(direction, norm), alpha=step_size)
        return project(x, probe.clean, eps, norm), reference

    def inside(probe: Probe, reference: Tensor) -> Tensor:
        return band.side(band.from_centre(probe, reference)) == 0

    start = partial(random_point, eps=eps, norm=norm) if random_start else None
    needs = frozenset([OBJECTIVE_GRAD, CONSTRAINT_GRAD])
    return Attack(
        "orthogonal", settings, objective, needs, init, step, start,
        constraint=band.score, stops=stop_when_fooled(stop, targeted, inside),
    )  # fmt: skip
