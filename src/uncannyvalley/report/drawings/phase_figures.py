"""Phases as distributions over examples, and as shares that grow along the walk."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.analysis.summary import RIDGE
from uncannyvalley.report.drawings.figures import INK, STYLE, line_of

COLUMNS = {
    "ridge_height": ("Height of the ridge", "log κ at the ridge above {start} (nats)"),
    "depth": ("Depth at the end of the walk", "log κ below {start} at the last step (nats)"),
}
"""Column of the phase table → title and axis of its panel."""


def draw_distributions(title: str, found: Phases) -> Figure:
    """Of how many examples the height, or the depth, is at least what the axis says; the attack beside its controls.

    Examples that were flipped before the walk are left out, as in all summaries.
    """
    start = found.summary().words.start
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (column, (heading, label)) in zip(panels, COLUMNS.items(), strict=True):
            _draw_shares_above(axes, {name: _of_correct(one, column) for name, one in _walks(found).items()})
            axes.set_title(heading)
            axes.set_xlabel(label.format(start=start))
        panels[0].set_ylabel("share of examples with at least that")
        _name_walks(panels[0])
        _mark(panels[0], RIDGE, "×10")
        _mark(panels[1], 0.0, f"ends below {start} →")
    return figure


def _name_walks(axes: Axes) -> None:
    """The legend; where no example was right at the start there is nothing to name."""
    if axes.lines:
        axes.legend(frameon=False, loc="best")
    else:
        axes.annotate(
            "no example was right before the walk",
            (0.5, 0.5),
            xycoords="axes fraction",
            ha="center",
            va="center",
        )


def _mark(axes: Axes, at: float, text: str) -> None:
    """A line with its name, where the axis reaches so far."""
    if not axes.get_xlim()[0] <= at <= axes.get_xlim()[1]:
        return
    axes.axvline(at, color=INK, linewidth=0.9, linestyle=":")
    axes.annotate(
        text, (at, 1.0), xycoords=("data", "axes fraction"), textcoords="offset points", xytext=(4, -11), fontsize=9
    )  # fmt: skip


def _walks(found: Phases) -> Mapping[str, Phases]:
    return {found.trajectory.attack: found, **found.controls}


def _of_correct(found: Phases, column: str) -> np.ndarray:
    return found.column(column)[found.column("flip_step") != 0]


def _draw_shares_above(axes: Axes, walks: Mapping[str, np.ndarray]) -> None:
    """The share of examples at or above each value: 1 at the left, 0 at the right, unless some are infinite."""
    finite = np.concatenate([np.array([0.0]), *(values[np.isfinite(values)] for values in walks.values())])
    room = 0.04 * (finite.max() - finite.min() or 1.0)
    edges = finite.min() - room, finite.max() + room
    for position, (name, values) in enumerate(walks.items()):
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        at = np.concatenate([[edges[0]], np.sort(values[np.isfinite(values)]), [edges[1]]])
        share = [(values >= one).mean() for one in at]
        colour, style = line_of(name, position)
        axes.step(at, share, style, where="pre", color=colour, linewidth=2, label=name)
    axes.set_xlim(*edges)
    axes.set_ylim(-0.02, 1.12)  # room for the names of marks
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def draw_flips(title: str, found: Phases, axis: str) -> Figure:
    """The share of examples that have flipped by each step, and of those that have entered the valley after it.

    A walk that ended keeps what it reached. axis  what the steps are
    """
    walks = _walks(found)
    last = max(np.nanmax(one.column("steps"), initial=1.0) for one in walks.values())
    prompts = found.trajectory.subject == "prompt"
    panels = {
        "flip_step": "Target has become greedy" if prompts else "Label has flipped",
        "valley_step": "In the valley: below the start after the flip" if prompts else "In the valley: below the clean κ after the flip",
    }  # fmt: skip
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        both = figure.subplots(2, 1, sharex=True, sharey=True)
        for axes, (column, heading) in zip(both, panels.items(), strict=True):
            for position, (name, one) in enumerate(walks.items()):
                _draw_reached(axes, name, position, _of_correct(one, column), last)
            axes.set_title(heading)
            axes.set_ylabel("share of examples")
            axes.set_ylim(-0.02, 1.04)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        _name_walks(both[0])
        both[1].set_xlabel(axis)
        both[1].xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    return figure


def _draw_reached(axes: Axes, name: str, position: int, steps: np.ndarray, last: float) -> None:
    """One line that rises where an example reaches a phase; steps are NaN where one never does."""
    if not len(steps):
        return
    reached = np.sort(steps[~np.isnan(steps)])
    at = np.concatenate([[0.0], reached, [last]])
    share = np.concatenate([[0.0], np.arange(1, len(reached) + 1), [len(reached)]]) / len(steps)
    colour, style = line_of(name, position)
    axes.step(at, share, style, where="post", color=colour, linewidth=2, label=name)
