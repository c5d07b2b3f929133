"""An attacker as one value, and those that walk: each of its walks starts where the ones before found nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.detect.adaptive.best import Best
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import SplitModel
from uncannyvalley.types import Attack, PerExample, Probe
from uncannyvalley.walking import Recording, walk

WHITE_BOX, BLACK_BOX, CHANCE = "white box", "black box", "chance"
"""What an attacker sees: gradients of network and detector, their answers alone, or nothing."""

STRIDE = 2.5
"""Times eps that the steps of a walk add up to (Madry et al. 2018: room to turn round at the border)."""


@runtime_checkable
class Attacker(Protocol):
    """One who attacks a detector: what it sees, the effort it makes, and its search."""

    @property
    def sees(self) -> str:
        """``WHITE_BOX``, ``BLACK_BOX`` or ``CHANCE``."""
        ...

    def harder(self, *, steps: int = 1, restarts: int = 0) -> "Attacker":
        """The same with so many times the steps, and so many more restarts."""
        ...

    def __call__(
        self,
        x: Float[Tensor, "n ..."],
        y: Int[Tensor, "n"],
        ids: Sequence[int],
        seed: int,
    ) -> Best:
        """The best point found for each image of the classes y; ``ids`` key the random numbers of each."""
        ...


@dataclass(frozen=True)
class Search:
    """What a maker of walks is told: the images it is for, its step size, and whether it starts at random."""

    x: Float[Tensor, "n ..."]
    y: Int[Tensor, "n"]
    step_size: float
    random_start: bool


@dataclass(frozen=True)
class Walker:
    """An attacker who follows gradients.

    detector  who is attacked; its own verdict picks the best iterate, whatever score the walk follows, until one passes
    walks     makers of attacks, tried one after the other on the images that none before has pushed past the detector
    eps       radius of the ball, from which the step size follows: STRIDE · eps/steps
    steps     of each walk
    restarts  rounds of all walks: the first from the clean image, the others from random points of the ball
    exact     the detector's suspicion where the walks are held by just that, so that no verdict costs anything extra
    """

    detector: ImageDetector
    walks: tuple[Callable[[Search], Attack], ...]
    eps: float
    steps: int
    restarts: int = 1
    exact: PerExample | None = None
    sees: str = WHITE_BOX

    def harder(self, *, steps: int = 1, restarts: int = 0) -> "Walker":
        return replace(self, steps=self.steps * steps, restarts=self.restarts + restarts)

    def __call__(self, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], ids: Sequence[int], seed: int) -> Best:
        model = self.detector.model
        x, y = model.place(x), y.to(model.device)
        best = Best(x, self.detector.threshold)
        step_size = STRIDE * self.eps / self.steps
        for restart in range(self.restarts):
            for number, make in enumerate(self.walks):
                left = (~best.succeeded).nonzero().flatten()
                if not len(left):
                    return best
                attack = make(Search(x[left], y[left], step_size, random_start=restart > 0))
                chosen = [ids[i] for i in left.tolist()]
                stream = restart * len(self.walks) + number
                best.take(left, self._walked(attack, x[left], y[left], chosen, seed, stream))
        return best

    def _walked(
        self, attack: Attack, x: Tensor, y: Tensor, ids: Sequence[int], seed: int, stream: int
    ) -> Best:
        prober = Prober(self.detector.model, x, y, None, attack.objective)
        best = Best(x, self.detector.threshold)
        everyone = torch.arange(len(x), device=x.device)
        for _, probe in walk(prober, attack, Recording(self.steps, (), seed=seed), ids, stream):
            wrong = (probe.predicted != probe.y) & ~best.succeeded
            rows = everyone[wrong]
            if len(rows):
                suspicion = self._verdict(probe, attack, rows)
                best.see(rows, probe.x[rows], wrong[rows], suspicion)
                _count_flat(best, probe, rows, suspicion)
            if bool(best.succeeded.all()):
                break
        return best

    def _verdict(self, probe: Probe, attack: Attack, rows: Tensor) -> Float[Tensor, "m"]:
        if probe.constraint is not None and attack.constraint is self.exact:
            return probe.constraint[rows].double()
        return suspicion_of(self.detector, probe, rows)


def probe_of(model: SplitModel, x: Float[Tensor, "n ..."]) -> Probe:
    """The probe at images alone, their predicted classes as labels."""
    features = model.features(x)
    logits = model.head.logits(features)
    if logits.dtype in (torch.float16, torch.bfloat16):
        features, logits = features.float(), logits.float()
    owner = torch.arange(len(x), device=x.device)
    return Probe(x, x, logits.argmax(dim=1), None, owner, features, logits, model.head)


def suspicion_of(detector: ImageDetector, probe: Probe, rows: Int[Tensor, "m"]) -> Float[Tensor, "m"]:
    """The detector's own verdict on some rows of a probe, without gradients."""
    part = Probe(
        probe.x[rows], probe.clean[rows], probe.y[rows], None, probe.owner[rows],
        probe.features[rows], probe.logits[rows], probe.head,
    )  # fmt: skip
    with torch.no_grad():
        return detector.suspicion(part).detach().double()


def _count_flat(best: Best, probe: Probe, rows: Tensor, suspicion: Tensor) -> None:
    """Where a misclassified image is flagged the score must fall: is there a gradient to follow?"""
    if probe.constraint_grad is None:
        return
    flagged = rows[suspicion > best.threshold]
    flat = ~probe.constraint_grad[flagged].flatten(1).any(dim=1)
    best.count_gradients(len(flagged), int(flat.sum()))
