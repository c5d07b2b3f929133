"""A detector's suspicion as an attacker sees it: with the detector's own noise, or as a mean over other draws."""

from collections.abc import Sequence

import torch
from torch import Tensor

from uncannyvalley.detect.changes import JOIN, NOISE
from uncannyvalley.detect.image_detector import Fitted, ImageDetector
from uncannyvalley.detect.looks import Look, Looker
from uncannyvalley.types import PerExample, Probe

MOST_DRAWS = 4

SEED_STEP = 7919
"""Between the seeds of an attacker's draws."""


def expected_suspicion(detector: ImageDetector, draws: int = 1, *, knows_seed: bool = True) -> PerExample:
    """The mean of the detector's suspicion over ``draws`` draws of its noise, differentiable.

    With ``knows_seed`` the first draw is the detector's own, so that one draw is its suspicion itself; without, none is.
    Copies without noise are shared by all draws. A detector that draws no noise has one suspicion.
    """
    copies = detector.fitted.columns.copies
    noisy = [one for one in copies if draws_noise(one)]
    if not noisy or (knows_seed and draws == 1):
        return detector.suspicion
    first = 0 if knows_seed else 1
    seeds = [detector.seed + SEED_STEP * i for i in range(first, first + draws)]
    whole = Looker(detector.model, copies, seeds[0])
    others = [Looker(detector.model, noisy, seed) for seed in seeds[1:]]
    return _mean_suspicion(detector.fitted, whole, others)


def noise_is_drawn(detector: ImageDetector) -> bool:
    """Whether the detector's seed matters to its score."""
    return any(draws_noise(one) for one in detector.fitted.columns.copies)


def draws_noise(copy: str) -> bool:
    """Whether a copy of that name holds noise."""
    return any(part.startswith(NOISE) for part in copy.split(JOIN))


def _mean_suspicion(fitted: Fitted, whole: Looker, others: Sequence[Looker]) -> PerExample:
    def expected(probe: Probe) -> Tensor:
        look = whole.at(probe)
        looks = [look, *(Look(look.probe, {**look.copies, **one.at(probe).copies}) for one in others)]
        nats = [fitted.estimator.nats(fitted.columns.read(one), look.predicted).sum(dim=1) for one in looks]
        return torch.stack(nats).mean(dim=0)

    return expected
