"""Doubts about attacks that fail for reasons of their own: they fire where they should, and nowhere else."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adaptive_cases import EPS, held, plain, table, with_threshold
from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.detect.adaptive import (
    Walker,
    attack_detector,
    combined,
)
from uncannyvalley.detect.adaptive.best import Best
from uncannyvalley.types import Probe


class Made:
    """An attacker that succeeds on as many images as it is told to, given enough effort."""

    def __init__(self, points: Tensor, succeeds: int, sees: str = "white box", **effort: int) -> None:
        self.points, self.succeeds, self._sees = points, succeeds, sees
        self.effort = {"steps": 1, "restarts": 0, "gained": 0, "lies": 0} | effort

    @property
    def sees(self) -> str:
        return self._sees

    def harder(self, *, steps: int = 1, restarts: int = 0) -> "Made":
        more = (
            self.effort["gained"] if steps > self.effort["steps"] or restarts > self.effort["restarts"] else 0
        )
        return Made(self.points, self.succeeds + more, self._sees)

    def __call__(self, x: Tensor, y: Tensor, ids: Sequence[int], seed: int) -> Best:
        best = Best(x, 1.0)
        for i, one in enumerate(ids):
            if one < self.succeeds:
                row = torch.tensor([i])
                best.see(row, self.points[one : one + 1], torch.tensor([True]), torch.zeros(1).double())
            elif one < self.succeeds + self.effort["lies"]:
                row = torch.tensor([i])
                best.see(row, x[i : i + 1], torch.tensor([True]), torch.zeros(1).double())
        return best


def beaten() -> tuple[Tensor, Tensor, Tensor]:
    """Twenty images that can be beaten, their labels, and how."""
    rows = torch.from_numpy(np.flatnonzero(table().headline.succeeded)[:20])
    assert len(rows) == 20
    x, y = held(150, 190)
    return x[rows], y[rows], table().headline.images[rows]


def fired(diagnostics: Sequence[Diagnostic]) -> set[str]:
    return {one.name for one in diagnostics if one.fired}


def test_doubts_fire_where_they_should_and_nowhere_else() -> None:
    detector = plain()
    x, y, points = beaten()

    def doubts(**made: Made) -> set[str]:
        return fired(attack_detector(detector, x, y, attackers=made).headline.diagnostics)

    strong, weak = Made(points, 12), Made(points, 2)
    assert doubts(strong=strong, noise=Made(points, 1, "chance"), ask=Made(points, 12, "black box")) == set()
    assert doubts(weak=weak, ask=Made(points, 8, "black box")) == {"black box beats white box"}
    assert doubts(weak=weak, noise=Made(points, 2, "chance")) == {"noise as strong as the attack"}
    assert doubts(short=Made(points, 2, gained=4, restarts=9)) == {"more steps still help"}
    assert doubts(few=Made(points, 2, gained=4, steps=9)) == {"more restarts still help"}
    assert doubts(almost=Made(points, 2, gained=1)) == set()  # one of twenty is within the slack
    assert doubts(liar=Made(points, 2, lies=3)) == {"silent success"}
    assert (
        doubts(whole=Made(points, 20), noise=Made(points, 20, "chance")) == set()
    )  # nothing is left to find


def test_a_score_without_gradient_is_noticed() -> None:
    """Clamped far above the threshold, as a detector that masks its gradient is."""
    detector = plain()
    x, y = held(150, 190)
    score = detector.suspicion

    def walks(clamped: bool) -> Walker:
        def stuck(probe: Probe) -> Tensor:
            found = score(probe)
            return found.clamp(min=found.detach().amax() + 1) if clamped else found

        return Walker(
            with_threshold(detector, detector.threshold / 50),
            (lambda search: combined(eps=EPS, step_size=search.step_size, score=stuck, weight=0.01),), EPS, 12,
        )  # fmt: skip

    for clamped in (True, False):
        walker = walks(clamped)
        found = attack_detector(walker.detector, x, y, attackers={"combined": walker}, doubt=False)
        assert ("zero gradients of the score" in fired(found.rows[0].diagnostics)) == clamped
        assert found.rows[0].trustworthy != clamped
