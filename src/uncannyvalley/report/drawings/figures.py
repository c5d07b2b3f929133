"""The walk as a figure: log κ of the attack beside its controls, what it is made of, and two more measures."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from uncannyvalley.analysis.curves import BAND, Curve, ShareCurves
from uncannyvalley.analysis.summary import WalkSummary

# Okabe and Ito's colours, told apart by readers with any colour vision.
ATTACK_COLOUR, INK = "#D55E00", "#222222"
CONTROL_COLOURS = {
    "noise": "#7A7A7A", "random-tokens": "#7A7A7A", "assist": "#0072B2", "soft-prompt": "#0072B2",
}  # fmt: skip
SECOND_COLOUR = "#0072B2"

HEADROOM = 0.12
"""Share of the upper panel that is left for the names of phases."""
SHARE_COLOURS = {"gini": "#E69F00", "norm": "#009E73", "geometry": "#CC79A7"}
SHARE_TITLES = {"gini": "Gini (confidence)", "norm": "2 log|φ| (norm)", "geometry": "geometry of W"}

STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "svg.fonttype": "path", "svg.hashsalt": "uncannyvalley",
    "axes.edgecolor": "#888888", "axes.labelcolor": INK, "text.color": INK,
}  # fmt: skip


@dataclass(frozen=True)
class LowerPanel:
    """Two measures with an axis each: ``left`` of one walk or several, ``right`` of the attack alone, or none."""

    title: str
    left: Sequence[tuple[str, Curve]]
    left_label: str
    right: Curve | None
    right_label: str
    right_limits: tuple[float, float] | None = None
    right_colour: str = SECOND_COLOUR


@dataclass(frozen=True)
class WalkFigure:
    """Everything the figure shows; the attack's curves come first.

    sharpness: walk → its curve of log κ. axis says what the steps are, start what is at step 0.
    """

    title: str
    sharpness: Mapping[str, Curve]
    shares: ShareCurves
    summary: WalkSummary
    lower: LowerPanel
    axis: str
    start: str = "clean"
    examples: str = "examples"


def draw_walk(shown: WalkFigure) -> Figure:
    """Three panels over one axis of steps."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 8.2), layout="constrained")
        FigureCanvasAgg(figure)
        sharpness, shares, lower = figure.subplots(3, 1, sharex=True, height_ratios=[3.2, 1.8, 1.5])
        figure.suptitle(shown.title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        _draw_sharpness(sharpness, shown)
        _draw_shares(shares, shown.shares)
        _draw_lower(lower, shown.lower)
        lower.set_xlabel(shown.axis)
        lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    return figure


def draw_panel(shown: WalkFigure, name: str) -> Figure:
    """One of the three panels alone: "sharpness", "shares" or "loss"."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        figure.suptitle(shown.title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        if name == "sharpness":
            _draw_sharpness(axes, shown)
        elif name == "shares":
            _draw_shares(axes, shown.shares)
        else:
            _draw_lower(axes, shown.lower)
        axes.set_xlabel(shown.axis)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    return figure


def _draw_sharpness(axes: Axes, shown: WalkFigure) -> None:
    for position, (name, curve) in enumerate(shown.sharpness.items()):
        colour, style = line_of(name, position)
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(curve.steps, curve.median, style, color=colour, linewidth=2, label=curve.walk)
    attack = next(iter(shown.sharpness.values()))
    axes.axhline(attack.median[0], color=INK, linewidth=0.8, alpha=0.5)
    axes.annotate(
        shown.start, (attack.steps[-1], attack.median[0]), textcoords="offset points", xytext=(0, 3), ha="right", fontsize=9
    )  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + HEADROOM * (high - low))
    _mark_phases(axes, shown.summary)
    axes.set_title(f"Relative sharpness at the head, median and {BAND[0]}–{BAND[1]} % of {shown.examples}")
    axes.set_ylabel("log κ (nats)")
    axes.legend(frameon=False, loc="best")


def line_of(walk: str, position: int) -> tuple[str, str]:
    """Colour and style of a walk by its name and place: the attack comes first, whatever its name; controls are dashed."""
    is_control = position > 0 and walk in CONTROL_COLOURS
    return (CONTROL_COLOURS[walk], "--") if is_control else (ATTACK_COLOUR, "-")


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


def _draw_lower(axes: Axes, shown: LowerPanel) -> None:
    for position, (name, curve) in enumerate(shown.left):
        colour, style = line_of(name, position)
        axes.plot(curve.steps, curve.median, style, color=colour, linewidth=1.8)
    axes.set_ylabel(shown.left_label, color=ATTACK_COLOUR)
    axes.set_title(shown.title)
    if shown.right is None:
        return
    beside = axes.twinx()
    beside.spines["right"].set_visible(True)
    beside.plot(
        shown.right.steps, shown.right.median, color=shown.right_colour, linewidth=1.8, linestyle="-."
    )
    beside.set_ylabel(shown.right_label, color=shown.right_colour)
    if shown.right_limits is not None:
        beside.set_ylim(*shown.right_limits)


def to_png(figure: Figure, dpi: float = 150.0) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    with texts_as_they_are(figure):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element, without the XML prologue."""
    buffer = io.StringIO()
    with texts_as_they_are(figure), matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def to_pdf(figure: Figure) -> bytes:
    """The figure as PDF bytes; its texts can be searched."""
    buffer = io.BytesIO()
    with texts_as_they_are(figure), matplotlib.rc_context({**STYLE, "pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))
    return buffer.getvalue()


@contextmanager
def texts_as_they_are(figure: Figure) -> Iterator[None]:
    """Names of data, classes and attacks are no formulas, and a letter without a glyph is a box, not a warning."""
    ticks = {
        text
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for text in axis.findobj(Text)
        if text is not axis.label
    }
    for text in figure.findobj(Text):
        if text not in ticks:
            text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
