"""Walks under several heads in one figure: where κ stands, how it changes, and how sure the head is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uncannyvalley.analysis.curves import BAND, Curve, curve, share_curves
from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.analysis.words import WORDS
from uncannyvalley.replaying.replayable_run import ReplayableRun
from uncannyvalley.replaying.replayed_walk import RECORDED, ChosenHead
from uncannyvalley.report.drawings.figures import ATTACK_COLOUR, INK, STYLE
from uncannyvalley.trajectory import Trajectory

COLOURS = "viridis"
"""Several replays in their order, from dark to light: rising lightness is told apart without colours too."""

LIGHTEST = 0.85


@dataclass(frozen=True)
class HeadCurves:
    """One walk under one head.

    sharpness, confidence  medians and bands of log κ and p_t
    change_steps, change   mean change of log κ since the clean image, by step
    """

    sharpness: Curve
    confidence: Curve
    change_steps: np.ndarray
    change: np.ndarray


@dataclass(frozen=True)
class ReplayFigure:
    """Everything the figure shows: name of a head → its curves, the recorded one first."""

    title: str
    heads: Mapping[str, HeadCurves]
    axis: str


def figure_of_replays(found: ReplayableRun, replays: Sequence[tuple[ChosenHead, Phases]]) -> ReplayFigure:
    """What the figure of a run under several heads shows; ``replays`` as ``ReplayableRun.under`` gives them."""
    heads = {RECORDED: _curves(found.recorded.trajectory)}
    heads |= {chosen.words: _curves(phases.trajectory) for chosen, phases in replays}
    title = f"One recorded path under other heads: {found.run.plan.attack.name}, {found.run.path.name}"
    return ReplayFigure(title, heads, WORDS["image"].axis)


def _curves(trajectory: Trajectory) -> HeadCurves:
    shares = share_curves(trajectory)
    sharpness, confidence = (curve(trajectory, name) for name in ("log_relative_sharpness", "confidence"))
    return HeadCurves(sharpness, confidence, shares.steps, shares.total)


def draw_replay(shown: ReplayFigure) -> Figure:
    """Three panels over one axis of steps; bands only where two heads are compared."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 8.0), layout="constrained")
        FigureCanvasAgg(figure)
        change, sharpness, confidence = figure.subplots(3, 1, sharex=True, height_ratios=[2.4, 2.2, 1.6])
        figure.suptitle(shown.title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        _draw_changes(change, shown.heads)
        figure.legend(frameon=False, fontsize=9, loc="outside right upper")
        _draw_medians(sharpness, {name: one.sharpness for name, one in shown.heads.items()})
        sharpness.set_title(f"Relative sharpness at each head, median{_band(shown.heads)}")
        sharpness.set_ylabel("log κ (nats)")
        _draw_medians(confidence, {name: one.confidence for name, one in shown.heads.items()})
        confidence.set_title(f"Confidence in the predicted class, median{_band(shown.heads)}")
        confidence.set_ylabel("probability")
        confidence.set_ylim(0, 1.05)
        confidence.set_xlabel(shown.axis)
        confidence.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    return figure


def _draw_changes(axes: Axes, heads: Mapping[str, HeadCurves]) -> None:
    for position, (name, one) in enumerate(heads.items()):
        colour, style = _line_of(position, len(heads))
        over = _over(position)
        axes.plot(one.change_steps, one.change, style, color=colour, linewidth=2, label=name, zorder=over)
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.set_title("Change of log κ since the clean image, mean: after the flip, below 0 is the valley")
    axes.set_ylabel("change (nats)")


def _draw_medians(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for position, one in enumerate(curves.values()):
        colour, style = _line_of(position, len(curves))
        if len(curves) == 2:
            axes.fill_between(one.steps, one.low, one.high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(one.steps, one.median, style, color=colour, linewidth=2, zorder=_over(position))


def _over(position: int) -> int:
    """The recorded walk is drawn last: its dashes let a replay at temperature 1 be seen through."""
    return 3 if position == 0 else 2


def _band(heads: Mapping[str, HeadCurves]) -> str:
    return f" and {BAND[0]}–{BAND[1]} % of examples" if len(heads) == 2 else ""


def _line_of(position: int, count: int) -> tuple[str, str]:
    """Colour and style: the recorded walk is dashed ink, a single replay has the attack's colour."""
    if position == 0:
        return INK, "--"
    if count == 2:
        return ATTACK_COLOUR, "-"
    shade = LIGHTEST * (position - 1) / (count - 2)
    return matplotlib.colors.to_hex(matplotlib.colormaps[COLOURS](shade)), "-"
