"""What a training step descends: objectives, and wrappers that compose with any of them."""

from uncannyvalley.train.objectives.adversarial import pgd_at
from uncannyvalley.train.objectives.ascending import sam, take_gradients
from uncannyvalley.train.objectives.flatness import flat
from uncannyvalley.train.objectives.naming import KINDS, named
from uncannyvalley.train.objectives.objective import Cost, Loss, Objective, TrainingLoss
from uncannyvalley.train.objectives.plain import erm
from uncannyvalley.train.objectives.trades import trades

__all__ = [
    "KINDS", "Cost", "Loss", "Objective", "TrainingLoss", "erm", "flat", "named", "pgd_at", "sam", "take_gradients",
    "trades",
]  # fmt: skip
