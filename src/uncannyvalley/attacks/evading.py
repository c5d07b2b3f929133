"""PGD that fools the label and then holds a score inside a band: what a detector by sharpness must face."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.attacks.ball import check_ball, per_row, project, random_point, steepest
from uncannyvalley.attacks.band import Band, Score
from uncannyvalley.attacks.stopping import check_finite, fooled, stop_settings, stop_when_fooled
from uncannyvalley.attacks.tangent import inner, tangent_step
from uncannyvalley.types import CONSTRAINT_GRAD, OBJECTIVE_GRAD, Attack, Draws, Probe, gap_to_others

SMALLEST = 2.0**-10
"""Share of the step size below which a row's steps are halved no more."""

KEPT = 0.5
"""Share of a row's success that a step may not spend: the gradients know the margin only nearby."""


class _State(NamedTuple):
    """reference: what the band is counted from; side: of the band at the last step; share: of the step size."""

    reference: Float[Tensor, "n"]
    side: Float[Tensor, "n"]
    was_fooled: Bool[Tensor, "n"]
    share: Float[Tensor, "n"]


def success_gradient(probe: Probe, *, targeted: bool) -> Float[Tensor, "n ..."]:
    """∂g/∂x of the soft margin g = logsumexp_{s≠y} z_s − z_y (targeted: z_target − logsumexp of the others).

    From the gradient of the log loss, d log softplus(g)/dg = σ(g)/softplus(g), so it costs no backward of its own.
    """
    assert probe.objective_grad is not None
    if not targeted:
        gap, sign = probe.label_gap, 1.0
    else:
        assert probe.target is not None
        gap, sign = gap_to_others(probe.logits, probe.target), -1.0
    slope = torch.exp(torch.nn.functional.logsigmoid(gap) - objectives.log_softplus(gap))
    return (sign * probe.objective_grad.double() / per_row(slope, probe.x)).to(probe.x)


def evading(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    score: Score = "log_relative_sharpness",
    low: float = -1.0,
    high: float = 1.0,
    relative: bool = True,
    margin: float = 0.0,
    random_start: bool = False,
    targeted: bool = False,
    stop: float | None = None,
) -> Attack:
    """PGD that fools the label, then holds a score (log κ) within a band around the clean image's.

    score     name of a measure, a Measure, or a differentiable function of a probe (a detector's score)
    low, high the band in the score's units, from the clean image's score unless ``relative`` is False
    margin    nats by which the label must be wrong (targeted: the target must lead)
    stop      a row stops once it is fooled by ``stop`` nats with its score inside the band

    Rule, row by row. Not fooled: climb the log loss. Fooled and outside the band: move the score towards its centre,
    by the first-order step or the step size if that is shorter; where this would spend more than half of the success
    margin, along the steepest step that does not. Fooled and inside: hold. A row's step is halved when the score jumps
    across the band or the label comes back, and doubled again while neither happens.

    At the boundary between two classes p = ½, so log κ is near its ridge there whatever the attack does: the band can
    hold before and after the flip, not while crossing. Cost of a step: a forward and two backwards.
    Raises InputError for scores without a gradient in the image, empty bands, and as ``pgd`` does.
    """
    check_ball(norm, eps, step_size)
    band = Band.of(score, low, high, relative)
    margin = check_finite("margin", margin)
    objective = objectives.log_target_loss if targeted else objectives.log_loss
    settings = {
        "norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start, "targeted": targeted,
        **band.settings, "margin": margin, **stop_settings(stop),
    }  # fmt: skip

    def init(probe: Probe, draws: Draws) -> _State:
        nowhere = torch.zeros_like(probe.label_gap)
        return _State(band.reference(probe), nowhere, nowhere > 0, nowhere + 1)

    def step(
        probe: Probe, state: _State, prober: Callable[..., Probe], draws: Draws
    ) -> tuple[Tensor, _State]:
        from_centre = band.from_centre(probe, state.reference)
        is_fooled = fooled(probe, targeted=targeted, by=margin)
        side = torch.where(is_fooled, band.side(from_centre), 0.0)
        overshot = (state.side * side < 0) | (state.was_fooled & ~is_fooled)
        share = torch.where(overshot, state.share / 2, (state.share * 2).clamp(max=1)).clamp(min=SMALLEST)
        length = share * step_size
        climb = _climb(probe, length, norm, targeted)
        back = _towards_band(probe, side, from_centre, length, eps, norm, targeted=targeted, margin=margin)
        moved = torch.where(per_row(is_fooled, probe.x), back, climb)
        x = project(probe.x + moved, probe.clean, eps, norm)
        return x, _State(state.reference, torch.where(side == 0, state.side, side), is_fooled, share)

    def inside(probe: Probe, state: _State) -> Tensor:
        return band.side(band.from_centre(probe, state.reference)) == 0

    start = partial(random_point, eps=eps, norm=norm) if random_start else None
    needs = frozenset([OBJECTIVE_GRAD, CONSTRAINT_GRAD])
    return Attack(
        "evading", settings, objective, needs, init, step, start,
        constraint=band.score, stops=stop_when_fooled(stop, targeted, inside),
    )  # fmt: skip


def _climb(probe: Probe, length: Float[Tensor, "n"], norm: str, targeted: bool) -> Float[Tensor, "n ..."]:
    assert probe.objective_grad is not None
    sign = -1.0 if targeted else 1.0
    return per_row(sign * length, probe.x).to(probe.x) * steepest(probe.objective_grad, norm)


def _towards_band(
    probe: Probe,
    side: Float[Tensor, "n"],
    from_centre: Float[Tensor, "n"],
    length: Float[Tensor, "n"],
    eps: float,
    norm: str,
    *,
    targeted: bool,
    margin: float,
) -> Float[Tensor, "n ..."]:
    """The score's step towards the band's centre; zero where ``side`` is 0.

    Where first order says that the success margin would fall below what is kept of it, the steepest that keeps it.
    """
    assert probe.constraint_grad is not None
    direction = per_row(-side, probe.x).to(probe.x) * probe.constraint_grad
    unit = steepest(direction, norm)
    slope = inner(direction, unit)
    newton = from_centre.abs() / slope.clamp(min=torch.finfo(torch.float64).tiny)
    length = torch.where(side != 0, torch.minimum(length, newton), 0.0)
    plain = project(probe.x + per_row(length, probe.x).to(probe.x) * unit, probe.clean, eps, norm) - probe.x
    success = -objectives.shortfall(probe, targeted=targeted)
    spends = -KEPT * (success - margin)
    gradient = success_gradient(probe, targeted=targeted)
    held = tangent_step(direction, gradient, spends, length, probe.x, probe.clean, eps, norm)
    return torch.where(per_row(inner(gradient, plain) < spends, probe.x), held, plain)
