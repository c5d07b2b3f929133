"""The outcome of attacks on a detector, as plain values: counts, intervals, costs, doubts."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.detect.evaluation.rates import Rate


@dataclass(frozen=True)
class AdaptiveRow:
    """One attacker, or the best of all.

    attacker       its name; sees: "white box", "black box" or "chance"
    misclassified  images with some misclassified point on the way
    flagged        of these, the images whose best point is flagged
    success        images that are misclassified and not flagged at the promised threshold
    forwards, backwards  of the network for each image attacked: verdicts on the way included
    seconds        of the search
    diagnostics    doubts about this search, fired or not
    images         like the images given: the best point found; the clean image where there is none or it was not attacked
    succeeded      bool (n given,)
    """

    attacker: str
    sees: str
    misclassified: Rate
    flagged: Rate
    success: Rate
    forwards: float
    backwards: float
    seconds: float
    diagnostics: tuple[Diagnostic, ...] = ()
    images: Tensor | None = field(default=None, repr=False, compare=False)
    succeeded: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def trustworthy(self) -> bool:
        """Whether no doubt fired: the success is then not known to be too low."""
        return not any(one.fired for one in self.diagnostics)

    def to_json(self) -> dict[str, Any]:
        rates = {name: _plain(getattr(self, name)) for name in ("misclassified", "flagged", "success")}
        return {
            "attacker": self.attacker, "sees": self.sees, **rates, "forwards": self.forwards,
            "backwards": self.backwards, "seconds": self.seconds, "trustworthy": self.trustworthy,
            "diagnostics": [asdict(one) for one in self.diagnostics],
        }  # fmt: skip


@dataclass(frozen=True)
class AdaptiveTable:
    """Attackers who know a detector, against the images that are right and unflagged to begin with.

    settings  what decided the table: eps, norm, steps, draws, knows_seed, restarts, seed, budget, fpr, threshold, forwards
    given     images given; wrong: misclassified before any attack; flagged: right, but flagged before any attack: neither
              of these counts
    rows      one for each attacker
    headline  best over all attackers, chance aside: an image counts where any of them succeeds. Its diagnostics are those of
              the whole
    notes     what was left out, and why
    """

    settings: dict[str, Any]
    given: int
    wrong: int
    flagged: int
    rows: tuple[AdaptiveRow, ...]
    headline: AdaptiveRow
    notes: tuple[str, ...] = ()

    @property
    def attacked(self) -> int:
        return self.given - self.wrong - self.flagged

    @property
    def trustworthy(self) -> bool:
        return self.headline.trustworthy

    def row(self, attacker: str) -> AdaptiveRow:
        """The row of that attacker."""
        return next(one for one in self.rows if one.attacker == attacker)

    def to_json(self) -> dict[str, Any]:
        """All but the images, as plain JSON values."""
        return {
            "settings": self.settings, "given": self.given, "wrong": self.wrong, "flagged": self.flagged,
            "attacked": self.attacked, "headline": self.headline.to_json(), "trustworthy": self.trustworthy,
            "rows": [one.to_json() for one in self.rows], "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        """A table to print."""
        lines = [
            f"{self.attacked} of {self.given} images attacked ({self.wrong} misclassified and {self.flagged} flagged before)",
            f"{'attacker':18} {'misclassified':20} {'flagged of these':20} {'success':20} forwards backwards",
        ]
        lines += [
            f"{one.attacker:18} {_short(one.misclassified):20} {_short(one.flagged):20} {_short(one.success):20} "
            f"{one.forwards:8.0f} {one.backwards:9.0f}{'' if one.trustworthy else '  not trustworthy'}"
            for one in (*self.rows, self.headline)
        ]
        fired = [
            f"  {row.attacker}: {one}"
            for row in (*self.rows, self.headline)
            for one in row.diagnostics
            if one.fired
        ]
        return "\n".join([*lines, *fired, *self.notes])


def _plain(rate: Rate) -> dict[str, Any]:
    """A rate for JSON, which has no NaN: the rate of nothing is null."""
    return asdict(rate) | {"value": rate.value if rate.out_of else None}


def _short(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]" if rate.out_of else "none"
