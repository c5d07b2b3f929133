"""What a training step descends: a loss over a batch, what it costs, and what wraps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.train.live import LiveNetwork, Seen
from uncannyvalley.types import Draws


class Loss(NamedTuple):
    """The loss of one batch.

    total  what is descended, a scalar with its history
    parts  named numbers for the log, scalars without history; ``loss`` is the base objective's own
    seen   the forward that ``total`` was taken of: wrappers read it, so that they need no forward of their own
    """

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]
    seen: Seen


class Cost(NamedTuple):
    """Passes over a batch that one step takes; plain training takes 1 and 1."""

    forwards: float
    backwards: float


@runtime_checkable
class TrainingLoss(Protocol):
    """Means over a batch. ``draws`` are the random numbers of its examples in this epoch, one stream each."""

    def __call__(
        self, network: LiveNetwork, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], draws: Draws
    ) -> Loss: ...


@dataclass(frozen=True)
class Objective:
    """What training descends.

    name      as the command line knows it; wrappers join theirs with +
    settings  everything that decides its numbers, for provenance
    loss      (network, x, y, draws) → Loss
    cost      passes of one step
    ascent    radius ρ of the step up that sharpness-aware minimisation takes before each step down; 0 for none
    """

    name: str
    settings: Mapping[str, Any]
    loss: TrainingLoss
    cost: Cost
    ascent: float = 0.0
