"""How well a detector does, as a figure, a section and a page: ROC curves on log axes, tables, doubts, provenance."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from uncannyvalley.report.drawings.comparison import COLOURS, LINES
from uncannyvalley.report.drawings.figures import INK, STYLE
from uncannyvalley.report.pages.html import from_template

SMALLEST_RATES = (1e-1, 1e-2)
"""Where the axis of true-positive rates may begin; rates below the last are drawn at the edge: a logarithm has no zero."""

SMALLEST_SHOWN = 1e-4
"""False-positive rates below are not drawn, however many clean images there are."""

ROOM = 34
"""Letters of a legend's entry."""

WIDTH = 52
"""Letters of the title above one panel."""


@dataclass(frozen=True)
class RocLine:
    """One curve: rates between 0 and 1, false positives rising. ``promised`` is where the promised threshold lies.

    strong  drawn thick: the one that the panel is about
    """

    title: str
    fpr: np.ndarray
    tpr: np.ndarray
    promised: tuple[float, float] | None = None
    strong: bool = False


@dataclass(frozen=True)
class RocPanel:
    """Curves that are to be compared."""

    title: str
    lines: Sequence[RocLine]


@dataclass(frozen=True)
class ResultTable:
    """A table of texts; its first column names the rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DetectionSection:
    """What a page shows of an evaluation. Every text is escaped; only the figure is markup, drawn by this package.

    panels    the curves of the figure as numbers
    promised  the detector's false-positive rate
    smallest  the smallest false-positive rate that the clean images can tell, where the axis begins
    """

    title: str
    lead: str
    figure_svg: str
    caption: str
    doubts: Sequence[str]
    tables: Sequence[ResultTable]
    provenance: Mapping[str, str]
    command: str
    panels: Sequence[RocPanel]
    promised: float
    smallest: float


def smallest_rate(clean: int) -> float:
    """The smallest false-positive rate that so many clean images can tell; never below SMALLEST_SHOWN."""
    return max(1.0 / max(clean, 1), SMALLEST_SHOWN)


def draw_roc(title: str, panels: Sequence[RocPanel], promised: float, clean: int) -> Figure:
    """True over false positives, both in logs, a panel beside the other.

    promised  the detector's rate, a vertical line
    clean     clean images behind the curves: a rate below 1/clean cannot be read, and is not drawn
    """
    most = max(len(one.lines) for one in panels)
    smallest = smallest_rate(clean)
    edge = _lower_edge(panels, smallest)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.1 * len(panels), 5.0 + 0.11 * most), layout="constrained")
        FigureCanvasAgg(figure)
        wrapped = textwrap.fill(title, WIDTH * len(panels))
        figure.suptitle(wrapped, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for one, panel in zip(axes, panels, strict=True):
            _draw(one, panel, promised, smallest, edge)
        axes[0].set_ylabel("true-positive rate (successful attacks flagged)")
    return figure


def _lower_edge(panels: Sequence[RocPanel], smallest: float) -> float:
    """Where the axis of true-positive rates begins, so that all curves show; at the last edge they may go below."""
    rates = [line.tpr[line.fpr >= smallest].min(initial=1.0) for panel in panels for line in panel.lines]
    return next((edge for edge in SMALLEST_RATES if min(rates, default=1.0) > edge), SMALLEST_RATES[-1])


def _draw(axes: Axes, panel: RocPanel, promised: float, smallest: float, lowest: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    chance = np.geomspace(max(smallest, lowest), 1, 50)
    axes.plot(chance, chance, color="#999999", linewidth=0.9, linestyle=(0, (1, 2)))
    axes.axvline(promised, color=INK, linewidth=0.9, linestyle=":")
    for number, line in enumerate(panel.lines):
        colour, style = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
        shown = line.fpr >= smallest * (1 - 1e-9)
        axes.plot(
            line.fpr[shown], line.tpr[shown].clip(lowest), style, color=colour, drawstyle="steps-post",
            linewidth=2.8 if line.strong else 1.5, zorder=4 if line.strong else 3,
        )  # fmt: skip
        if line.promised is not None and line.promised[1] > 0:
            at = (max(line.promised[0], smallest), max(line.promised[1], lowest))
            axes.plot(*at, "o", color=colour, markersize=6, markeredgecolor="white", zorder=5)
    axes.set_xlim(smallest, 1)
    axes.set_ylim(lowest, 1.15)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_xlabel("false-positive rate (held-out clean images)")
    axes.set_title(panel.title)
    _legend(axes, panel)


def _legend(axes: Axes, panel: RocPanel) -> None:
    """Below the panel, in two columns where the titles are short."""
    handles = [
        Line2D(
            [], [], color=COLOURS[number % len(COLOURS)], linestyle=LINES[number // len(COLOURS) % len(LINES)],
            linewidth=2.8 if line.strong else 1.8,
        )
        for number, line in enumerate(panel.lines)
    ]  # fmt: skip
    titles = [
        one.title if len(one.title) <= 2 * ROOM else f"{one.title[: 2 * ROOM - 1]}…" for one in panel.lines
    ]
    columns = 2 if all(len(one) <= ROOM for one in titles) else 1
    axes.legend(
        handles, titles, loc="upper left", bbox_to_anchor=(-0.02, -0.14), ncols=columns, frameon=False, fontsize=8.5,
        handlelength=2.6,
    )  # fmt: skip


def render_detection(page: DetectionSection) -> str:
    """The section as a page of its own, HTML that works from disk, offline."""
    return from_template("detection.html.j2", page)
