"""Gradient walks: FGSM, PGD and PGD with momentum, up or down one objective."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.attacks.ball import check_ball, project, random_point, steepest
from uncannyvalley.attacks.stopping import stop_settings, stop_when_fooled
from uncannyvalley.types import OBJECTIVE_GRAD, Attack, Draws, PerExample, Probe


def gradient_walk(
    name: str,
    *,
    objective: PerExample,
    ascend: bool,
    settings: dict[str, Any],
    decay: float = 0.0,
    max_steps: int | None = None,
    stop: float | None = None,
) -> Attack:
    """x ← project(x ± step_size · steepest(v)), v ← decay · v + ∇/|∇|_1.

    The form every gradient attack here shares; with decay 0 the velocity v is the gradient itself. With ``stop`` a row
    ends once its label is wrong (targeted: its target reached) by that many nats.
    """
    norm, eps, step_size = settings["norm"], settings["eps"], settings["step_size"]
    signed_step = step_size if ascend else -step_size

    def init(probe: Probe, draws: Draws) -> Tensor | None:
        return torch.zeros_like(probe.clean) if decay else None

    def step(
        probe: Probe, velocity: Tensor | None, prober: Callable[..., Probe], draws: Draws
    ) -> tuple[Tensor, Tensor | None]:
        direction = probe.objective_grad
        assert direction is not None  # the attack's needs name it
        if velocity is not None:
            length = direction.abs().flatten(1).sum(dim=1).view(-1, *[1] * (direction.dim() - 1))
            velocity = decay * velocity + direction / torch.where(length > 0, length, 1.0)
            direction = velocity
        x = torch.add(probe.x, steepest(direction, norm), alpha=signed_step)
        return project(x, probe.clean, eps, norm), velocity

    start = partial(random_point, eps=eps, norm=norm) if settings["random_start"] else None
    needs = frozenset([OBJECTIVE_GRAD])
    stops = stop_when_fooled(stop, bool(settings.get("targeted", False)))
    settings = settings | stop_settings(stop)
    return Attack(name, settings, objective, needs, init, step, start, max_steps, stops=stops)


def _label_attack(name: str, targeted: bool, settings: dict[str, Any], **options: Any) -> Attack:
    """Away from the true class, or towards a target class."""
    objective = objectives.log_target_loss if targeted else objectives.log_loss
    return gradient_walk(
        name,
        objective=objective,
        ascend=not targeted,
        settings=settings | {"targeted": targeted},
        **options,
    )


def pgd(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    random_start: bool = False,
    targeted: bool = False,
    stop: float | None = None,
) -> Attack:
    """Projected gradient ascent on the loss (Madry et al. 2018; Kurakin et al. 2017).

    eps and step_size are in units of the input's range [0, 1]; ``norm`` is "linf" or "l2".
    Targeted, it descends the loss at the target class. Cost of a step: a forward and a backward.
    With ``stop`` a row ends once its margin is −``stop`` nats or less, 0 at the flip (targeted: once the target leads
    by as much); nothing is recorded after that.
    Raises InputError for an unknown norm, or eps or step_size not above 0.
    """
    check_ball(norm, eps, step_size)
    settings = {"norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start}
    return _label_attack("pgd", targeted, settings, stop=stop)


def early(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    random_start: bool = False,
    targeted: bool = False,
) -> Attack:
    """PGD that stops at the flip: ``pgd`` with stop=0, under a name of its own.

    Its last recorded row is the first misclassified one (targeted: the first in its target class).
    """
    attack = pgd(norm, eps=eps, step_size=step_size, random_start=random_start, targeted=targeted, stop=0.0)
    settings = {name: value for name, value in attack.settings.items() if name != "stop"}  # its name says so
    return attack._replace(name="early", settings=settings)


def fgsm(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float | None = None,
    random_start: bool = False,
    targeted: bool = False,
) -> Attack:
    """One step of length ``step_size`` (eps if left out) along the gradient (Goodfellow et al. 2015)."""
    step_size = eps if step_size is None else step_size
    check_ball(norm, eps, step_size)
    settings = {"norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start}
    return _label_attack("fgsm", targeted, settings, max_steps=1)


def momentum(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    random_start: bool = False,
    targeted: bool = False,
    decay: float = 1.0,
    stop: float | None = None,
) -> Attack:
    """PGD along a running sum of gradients, each divided by its L1 norm (Dong et al. 2018).

    ``decay`` is the share of the sum that stays at each step; ``stop`` is that of ``pgd``.
    """
    check_ball(norm, eps, step_size)
    settings = {
        "norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start,
        "decay": decay,
    }  # fmt: skip
    return _label_attack("momentum", targeted, settings, decay=decay, stop=stop)
