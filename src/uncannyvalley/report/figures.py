"""The walk as a figure: log κ of the attack beside its controls, what it is made of, loss and confidence."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uncannyvalley.analysis.curves import BAND, Curve, ShareCurves
from uncannyvalley.analysis.summary import WalkSummary

# Okabe and Ito's colours, told apart by readers with any colour vision.
ATTACK_COLOUR, INK = "#D55E00", "#222222"
CONTROL_COLOURS = {"noise": "#7A7A7A", "assist": "#0072B2"}
SHARE_COLOURS = {"gini": "#E69F00", "norm": "#009E73", "geometry": "#CC79A7"}
SHARE_TITLES = {"gini": "Gini (confidence)", "norm": "2 log|φ| (norm)", "geometry": "geometry of W"}

STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "svg.fonttype": "path", "svg.hashsalt": "uncannyvalley",
    "axes.edgecolor": "#888888", "axes.labelcolor": INK, "text.color": INK,
}  # fmt: skip


@dataclass(frozen=True)
class WalkFigure:
    """Everything the figure shows; the attack's curves come first.

    curves: walk → measure → curve. axis says what its steps are.
    """

    title: str
    curves: Mapping[str, Mapping[str, Curve]]
    shares: ShareCurves
    summary: WalkSummary
    axis: str


def draw_walk(shown: WalkFigure) -> Figure:
    """Three panels over one axis of steps."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 8.2), layout="constrained")
        FigureCanvasAgg(figure)
        sharpness, shares, loss = figure.subplots(3, 1, sharex=True, height_ratios=[3.2, 1.8, 1.5])
        figure.suptitle(shown.title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        _draw_sharpness(sharpness, shown)
        _draw_shares(shares, shown.shares)
        _draw_loss(loss, next(iter(shown.curves.values())))
        loss.set_xlabel(shown.axis)
    return figure


def _draw_sharpness(axes: Axes, shown: WalkFigure) -> None:
    for name, curves in shown.curves.items():
        curve = curves["log_relative_sharpness"]
        colour = CONTROL_COLOURS.get(name, ATTACK_COLOUR)
        style = "--" if name in CONTROL_COLOURS else "-"
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(curve.steps, curve.median, style, color=colour, linewidth=2, label=curve.walk)
    attack = next(iter(shown.curves.values()))["log_relative_sharpness"]
    axes.axhline(attack.median[0], color=INK, linewidth=0.8, alpha=0.5)
    axes.annotate(
        "clean", (attack.steps[-1], attack.median[0]), textcoords="offset points", xytext=(0, 3), ha="right", fontsize=9
    )  # fmt: skip
    _mark_phases(axes, shown.summary)
    axes.set_title(f"Relative sharpness at the head, median and {BAND[0]}–{BAND[1]} % of examples")
    axes.set_ylabel("log κ (nats)")
    axes.legend(frameon=False, loc="best")


def _mark_phases(axes: Axes, summary: WalkSummary) -> None:
    """Vertical lines at the median ridge, flip and valley entry, with their names above."""
    marks = {"ridge": summary.ridge_step, "flip": summary.flip_step, "valley": summary.valley_step}
    by_step: dict[float, list[str]] = {}
    for name, step in marks.items():
        if not np.isnan(step.value):
            by_step.setdefault(step.value, []).append(name)
    for line, (at, names) in enumerate(sorted(by_step.items())):
        axes.axvline(at, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate(
            " = ".join(names),
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(4, -10 - 12 * line),
            fontsize=9,
        )  # fmt: skip  (each a line lower, so that near steps stay readable)


def _draw_shares(axes: Axes, shares: ShareCurves) -> None:
    axes.plot(shares.steps, shares.total, color=INK, linewidth=2.4, label="log κ")
    for name, colour in SHARE_COLOURS.items():
        axes.plot(shares.steps, getattr(shares, name), color=colour, linewidth=1.8, label=SHARE_TITLES[name])
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.set_title("What the change of log κ is made of (mean; the three add up)")
    axes.set_ylabel("change (nats)")
    axes.legend(frameon=False, fontsize=8.5, loc="best")


def _draw_loss(axes: Axes, curves: Mapping[str, Curve]) -> None:
    loss, confidence = curves["loss"], curves["confidence"]
    axes.plot(loss.steps, loss.median, color=ATTACK_COLOUR, linewidth=1.8)
    axes.set_ylabel("loss (nats)", color=ATTACK_COLOUR)
    beside = axes.twinx()
    beside.spines["right"].set_visible(True)
    beside.plot(
        confidence.steps, confidence.median, color=CONTROL_COLOURS["assist"], linewidth=1.8, linestyle="-."
    )
    beside.set_ylabel("confidence", color=CONTROL_COLOURS["assist"])
    beside.set_ylim(0, 1.05)
    axes.set_title("Loss of the true class and confidence in the predicted one (medians)")


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element, without the XML prologue."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
