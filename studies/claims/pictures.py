"""The two kinds of figure that the study draws: medians along walks, and numbers with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet

from claims.verdicts import Part, Verdict
from claims.walks import COLOURS
from uncannyvalley.report.drawings.figures import INK

CONTROLS = {"noise": ("#7A7A7A", "--"), "assist": ("#0072B2", "--")}

MARKS = {
    Verdict.HOLDS: "#009E73",
    Verdict.FAILS: "#D55E00",
    Verdict.OPEN: "#7A7A7A",
    Verdict.PARTLY: "#E69F00",
}
"""Colours of verdicts; their names stand beside the numbers, so that nothing hangs on colour."""

GREY = "#888888"

MIDDLE = (25, 75)


def sheet(width: float, height: float, panels: int) -> tuple[Sheet, list[Axes]]:
    """A figure with its panels side by side."""
    figure = Sheet(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def save(figure: Sheet, path: Path) -> None:
    """Written with nothing that changes from run to run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def walks(axes: Axes, changes: Mapping[str, np.ndarray], x: Mapping[str, np.ndarray] | None = None) -> None:
    """Median of log κ − clean log κ along each walk, with the middle half of the images of the first.

    changes  title → (images, rows)    x  title → (rows,), where rows are no steps
    """
    colours = iter(COLOURS)
    for number, (title, values) in enumerate(changes.items()):
        colour, style = CONTROLS.get(title, (None, "-"))
        colour = colour or next(one for one in colours if one not in dict(CONTROLS.values()))
        rows = np.arange(values.shape[1]) if x is None else x[title]
        axes.plot(rows, np.nanmedian(values, axis=0), style, color=colour, label=title, linewidth=1.8)
        if number == 0:
            low, high = np.nanpercentile(values, MIDDLE, axis=0)
            axes.fill_between(rows, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8)


def intervals(
    axes: Axes, parts: Sequence[Part], limit: float | None = None, titles: Sequence[str] | None = None
) -> None:
    """One line a part: its number, its interval, and its verdict in words at the right."""
    places = np.arange(len(parts))[::-1]
    for place, part in zip(places, parts, strict=True):
        one, colour = part.figure, MARKS[part.verdict]
        if np.isnan(one.value):
            continue
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([one.value], [place], "o", color=colour, markersize=5)
    if limit is not None:
        axes.axvline(limit, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_yticks(places, titles or [part.text for part in parts], fontsize=8.5, color=INK)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [part.verdict for part in parts], fontsize=7.5, color=GREY)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.set_ylim(-0.7, len(parts) - 0.3)
