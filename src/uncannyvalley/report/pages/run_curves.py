"""The curves of a run beside its controls: computed once, drawn by the browser and by the figure without scripts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from uncannyvalley.analysis.common_axis import SHARPNESS
from uncannyvalley.analysis.curves import Curve, ShareCurves, curve, drawn_walk, share_curves
from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.analysis.words import WORDS
from uncannyvalley.trajectory import Trajectory

QUERY_AXIS = "query of the attack (0 is the clean image; walks that ended stay at their last row)"

LOWER = {
    "image": {"loss": ("loss", "loss of the true class"), "confidence": ("confidence", "confidence in the predicted class")},
    "prompt": {"loss": ("target_loss", "loss of the target"), "confidence": ("confidence", "confidence in the predicted token"),
               "log_perplexity": ("log_perplexity", "log perplexity of the suffix")},
}  # fmt: skip
"""Subject → what stands below log κ: what it is called among a page's numbers → the recorded measure, and its title."""

SHARPNESS_TITLE = "log κ, relative sharpness at the head"


@dataclass(frozen=True)
class RunCurves:
    """What is drawn of a run.

    of_walk   walk → name → its curve, the attack first; the names are SHARPNESS and those of LOWER, where recorded
    titles    name → what it is called
    sources   name → the recorded measure
    """

    of_walk: Mapping[str, Mapping[str, Curve]]
    shares: ShareCurves
    axis: str
    titles: Mapping[str, str]
    sources: Mapping[str, str]

    @property
    def attack(self) -> str:
        """The walk that the run is about."""
        return next(iter(self.of_walk))

    def of(self, name: str) -> dict[str, Curve]:
        """The curves of one name by walk, of the walks that have it."""
        return {walk: curves[name] for walk, curves in self.of_walk.items() if name in curves}


def run_curves(found: Phases) -> RunCurves:
    """The curves of the walk that ``found`` speaks of, and of its controls.

    Attacks that see no gradient are drawn by what they accepted. Beside the many queries of a watched attack, control
    walks of few steps are stretched over its whole axis.
    """
    trajectory = found.trajectory
    lower = LOWER[trajectory.subject]
    wanted = {SHARPNESS: SHARPNESS} | {name: measure for name, (measure, _) in lower.items()}
    drawn = drawn_walk(trajectory)
    walks = {trajectory.attack: drawn} | {name: one.trajectory for name, one in found.controls.items()}
    curves = {walk: _curves(one, wanted) for walk, one in walks.items()}
    titles = {SHARPNESS: SHARPNESS_TITLE} | {name: title for name, (_, title) in lower.items()}
    there = curves[trajectory.attack]
    return RunCurves(
        of_walk=_stretched(curves) if trajectory.is_observed else curves,
        shares=share_curves(drawn),
        axis=QUERY_AXIS if trajectory.is_observed else WORDS[trajectory.subject].axis,
        titles={name: titles[name] for name in there},
        sources={name: wanted[name] for name in there},
    )


def _curves(walk: Trajectory, wanted: Mapping[str, str]) -> dict[str, Curve]:
    """Those that the walk has: a soft prompt has no perplexity."""
    with np.errstate(invalid="ignore"):  # between two vanished values, of −∞, there is no number: a gap
        curves = {name: curve(walk, measure) for name, measure in wanted.items() if measure in walk.measures}
    return {name: one for name, one in curves.items() if name == SHARPNESS or len(one.steps)}


def _stretched(curves: Mapping[str, Mapping[str, Curve]]) -> dict[str, dict[str, Curve]]:
    attack, *controls = curves
    length = float(curves[attack][SHARPNESS].steps.max(initial=0))
    found = {attack: dict(curves[attack])}
    for walk in controls:
        found[walk] = {name: _stretch(one, length) for name, one in curves[walk].items()}
    return found


def _stretch(one: Curve, length: float) -> Curve:
    last = int(one.steps.max(initial=0))
    steps = np.asarray(one.steps, float) * (length / max(1, last))
    return replace(one, steps=steps, walk=f"{one.walk} ({last} steps, stretched)")
