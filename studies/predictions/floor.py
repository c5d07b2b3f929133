"""Prediction (iii): cosine-head networks have a valley floor that can be computed before any attack.

`uncannyvalley.theory.cosine_floor` reads it off the head's rows: for each class as the predicted one, a proven lower bound of
log κ over all unit features without negative entries, and the lowest point that a search found. Held against the lowest log κ
that PGD reached, at every recorded point of all walks, the longest of them DEEP.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from predictions.subjects import Subject
from uncannyvalley.theory.cosine_floor import valley_floor

DEEP = (1.0, 200)
"""Radius, the whole range of pixels, and steps of 2.5/200 of it: no attack could have gone further."""

SLACK = 1e-4
"""Nats below the bound that float32 features may be."""

NEAR = 1.0
"""Nats: a floor further below the deepest point than that would say nothing about the valley."""


@dataclass(frozen=True)
class Floors:
    """(k,) each, by predicted class; lowest: of all points walked, infinite where no point was predicted so."""

    name: str
    certified: np.ndarray
    found: np.ndarray
    lowest: np.ndarray
    points: int
    below: int
    clean: float
    deepest: float

    @property
    def gap(self) -> float:
        """How far the deepest point stayed above the floor of its class, nats; the least over classes."""
        return float((self.lowest - self.certified).min())


def floors(one: Subject) -> Floors:
    """The floor of a network's head, and how deep its walks went."""
    bound = valley_floor(torch.from_numpy(one.weight), nonnegative=True)
    certified = bound.certified.numpy()
    lowest, points, below = np.full(len(certified), np.inf), 0, 0
    for walk in one.walks:
        np.minimum.at(lowest, walk.top.ravel(), walk.log_kappa.ravel())
        points += walk.top.size
        below += int((walk.log_kappa < certified[walk.top] - SLACK).sum())
    return Floors(
        f"{one.group} {one.name}", certified, bound.reached.numpy(), lowest, points, below,
        float(np.median(one.walks[0].log_kappa[:, 0])), float(np.median(one.walks[-1].log_kappa[:, -1])),
    )  # fmt: skip


def table(found: Sequence[Floors]) -> None:
    """One line a network; floors are the least over classes."""
    print(
        f"\n(iii) log κ of cosine heads, nats; floor: the least over classes, proven and as found by search; gap: of the class where a walk "
        f"came nearest\n{'':36}{'floor ≥':>9}{'found':>9}{'deepest walked':>16}{'gap':>7}{'points':>9}{'below':>7}{'clean, median':>15}{'end, median':>13}"
    )
    for one in found:
        print(
            f"{one.name:36}{one.certified.min():>9.3f}{one.found.min():>9.3f}{one.lowest.min():>16.3f}{one.gap:>7.3f}{one.points:>9}"
            f"{one.below:>7}{one.clean:>15.2f}{one.deepest:>13.2f}"
        )


def verdict(found: Sequence[Floors]) -> bool:
    """No point below its floor, and walks that come near it."""
    below, points = sum(one.below for one in found), sum(one.points for one in found)
    far = [one.name for one in found if one.gap > NEAR]
    holds = below == 0 and not far
    print(
        f"(iii) {'HOLDS' if holds else 'FAILS'}: {below} of {points} points below the floor of their class; networks whose deepest walk stays "
        f"more than {NEAR:g} nat above it: {', '.join(far) or 'none'}. A point below, or a floor out of reach, would have refuted it."
    )
    return holds
