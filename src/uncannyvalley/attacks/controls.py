"""Control walks of the same length in the same ball: what changes without an attack?"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.attacks.ball import check_ball, project, random_point, steepest
from uncannyvalley.attacks.gradient import gradient_walk
from uncannyvalley.errors import InputError
from uncannyvalley.types import Attack, Draws, Probe


def _control_settings(
    name: str, norm: str, eps: float, step_size: float, random_start: bool, targeted: bool
) -> dict[str, Any]:
    check_ball(norm, eps, step_size)
    if targeted:
        raise InputError(f"the control walk {name!r} aims at no class; leave targeted out")
    return {"norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start}


def noise(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    random_start: bool = False,
    targeted: bool = False,
) -> Attack:
    """Random directions: fresh fair signs (linf) or a fresh uniform direction (l2) at each step."""
    settings = _control_settings("noise", norm, eps, step_size, random_start, targeted)

    def step(probe: Probe, state: None, prober: Callable[..., Probe], draws: Draws) -> tuple[Tensor, None]:
        shape = probe.clean.shape[1:]
        drawn = draws.signs(shape) if norm == "linf" else draws.normal(shape)
        moved = probe.x + step_size * steepest(drawn.to(probe.x), norm)
        return project(moved, probe.clean, eps, norm), None

    start = partial(random_point, eps=eps, norm=norm) if random_start else None
    return Attack("noise", settings, objectives.log_loss, frozenset(), lambda *_: None, step, start)


def assist(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    random_start: bool = False,
    targeted: bool = False,
) -> Attack:
    """PGD that descends the true loss: it grows confident without any flip."""
    settings = _control_settings("assist", norm, eps, step_size, random_start, targeted)
    return gradient_walk("assist", objective=objectives.log_loss, ascend=False, settings=settings)


def controls_of(attack: Attack) -> tuple[Attack, ...]:
    """``noise`` and ``assist`` in the ball of ``attack``, with its step size and kind of start."""
    shared = {key: attack.settings[key] for key in ("norm", "eps", "step_size", "random_start")}
    return tuple(make(**shared) for make in (noise, assist) if make.__name__ != attack.name)
