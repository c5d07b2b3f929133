"""PGD on one sum of the loss and the detector's score: the first thing that an attacker who knows would try."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from uncannyvalley import objectives
from uncannyvalley.attacks.ball import check_ball, project, random_point, steepest
from uncannyvalley.attacks.stopping import check_finite
from uncannyvalley.types import CONSTRAINT_GRAD, OBJECTIVE_GRAD, Attack, Draws, PerExample, Probe


def combined(
    norm: str = "linf",
    *,
    eps: float,
    step_size: float,
    score: PerExample,
    weight: float,
    random_start: bool = False,
) -> Attack:
    """PGD up log loss − weight · score (Carlini and Wagner 2017, arXiv 1705.07263, with one weight for the whole walk).

    score   a differentiable function of a probe, high = suspicious, in nats
    weight  nats of log loss that a nat of the score is worth

    Cost of a step: a forward and two backwards; the score is watched on the way. Raises InputError as ``pgd`` does.
    """
    check_ball(norm, eps, step_size)
    weight = check_finite("weight", weight)
    settings = {
        "norm": norm, "eps": eps, "step_size": step_size, "random_start": random_start, "weight": weight,
    }  # fmt: skip

    def step(probe: Probe, state: None, prober: Callable[..., Probe], draws: Draws) -> tuple[Tensor, None]:
        assert probe.objective_grad is not None
        assert probe.constraint_grad is not None
        direction = probe.objective_grad - weight * probe.constraint_grad
        return project(probe.x + step_size * steepest(direction, norm), probe.clean, eps, norm), None

    start = partial(random_point, eps=eps, norm=norm) if random_start else None
    needs = frozenset([OBJECTIVE_GRAD, CONSTRAINT_GRAD])
    return Attack(
        "combined", settings, objectives.log_loss, needs, lambda *_: None, step, start, constraint=score
    )
