"""Curvature over depth: each quantity layer by layer, and the view without confidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uncannyvalley.report.drawings.figures import STYLE

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#7A7A7A")
BAND = (10, 90)


@dataclass(frozen=True)
class DepthCurve:
    """One quantity over the layers: log values, (layers, examples)."""

    title: str
    values: np.ndarray


def draw_depth(title: str, layers: Sequence[str], curves: Sequence[DepthCurve], view: str) -> Figure:
    """Medians and bands of every curve over the layers, from the first to the head."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 2.4 + 0.36 * len(layers)), 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        for curve, colour in zip(curves, COLOURS, strict=False):
            _draw(axes, curve, colour)
        axes.set_xticks(range(len(layers)), layers, rotation=60 if len(layers) > 6 else 0, fontsize=8)
        axes.set_title(f"median and {BAND[0]}–{BAND[1]} % of examples")
        axes.set_ylabel(view)
        axes.set_xlabel("layer, from the input to the head")
        axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def _draw(axes: Axes, curve: DepthCurve, colour: str) -> None:
    finite = np.where(np.isfinite(curve.values), curve.values, np.nan)
    depth = np.arange(len(finite))
    has_any = ~np.isnan(finite).all(axis=1)
    low, median, high = (np.full(len(finite), np.nan) for _ in range(3))
    low[has_any], median[has_any], high[has_any] = np.nanpercentile(
        finite[has_any], (BAND[0], 50, BAND[1]), axis=1
    )
    axes.fill_between(depth, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(depth, median, "-o", color=colour, markersize=4, linewidth=1.8, label=curve.title)
