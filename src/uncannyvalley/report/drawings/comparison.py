"""Several runs as one figure: log κ along each walk, and what its climb and descent are made of."""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from uncannyvalley.analysis.common_axis import Drawn
from uncannyvalley.analysis.comparison import Comparison
from uncannyvalley.analysis.curves import BAND
from uncannyvalley.analysis.phase_table import SHARES
from uncannyvalley.analysis.summary import Figure as Interval
from uncannyvalley.report.drawings.figures import INK, SHARE_TITLES, STYLE

# Okabe and Ito's colours without yellow, which thin lines on white lose. With four line styles, twelve runs differ.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
Line = Literal["-", "--", "-.", ":"]
LINES: tuple[Line, ...] = ("-", "--", "-.", ":")

FEW = 4
"""Up to so many runs have bands that can be told apart."""

NUMBERED = 6
"""Up to so many runs have bars with room for their numbers."""

LEGEND_ROOM, LEGEND_KEY = 118, 12
"""Letters that fit in a row of the legend, and those that a line with its gaps takes."""

GROUPS = tuple((change, share) for change in ("climb", "descent") for share in SHARES)
GAP = 0.5
"""Room between the bars of the climb and those of the descent, in groups."""

FRACTION = "fraction of each image's walk (0 is the clean image, 1 its last recorded row)"
CUT = "; drawn while at least half of the images are still walked"


def draw_comparison(title: str, shown: Comparison) -> Figure:
    """Two panels with one colour a run, and the legend below them."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 7.4 + 0.12 * len(shown.drawn)), layout="constrained")
        FigureCanvasAgg(figure)
        sharpness, shares = figure.subplots(2, 1, height_ratios=[3, 2])
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        _draw_sharpness(sharpness, shown)
        _draw_shares(shares, shown.drawn)
        figure.get_layout_engine().set(h_pad=0.07, hspace=0.05)  # type: ignore[union-attr, call-arg]
        _draw_legend(figure, shown)
    return figure


def _draw_sharpness(axes: Axes, shown: Comparison) -> None:
    alpha, size = (0.13, 8) if len(shown.drawn) <= FEW else (0.05, 6)
    for number, run in enumerate(shown.drawn.values()):
        colour, line = _look(number)
        curve = run.curve
        if curve is None:
            continue
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=alpha, linewidth=0)
        axes.plot(curve.steps, curve.median, line, color=colour, linewidth=2)
        if run.flip is not None:
            axes.plot(
                *run.flip, "o", color=colour, markerfacecolor=colour if run.flips_most else "white",
                markersize=size, markeredgewidth=1.8, zorder=5,
            )  # fmt: skip
    cut = any(run.cut for run in shown.drawn.values())
    axes.margins(x=0.02)
    if shown.axis == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"Relative sharpness at the head, median and {BAND[0]}–{BAND[1]} % of images")
    axes.set_ylabel("log κ (nats)")
    axes.set_xlabel((_step_title(shown) if shown.axis == "step" else FRACTION) + (CUT if cut else ""))


def _step_title(shown: Comparison) -> str:
    """Rows are steps of our walks, and queries of watched attacks."""
    queries = [run.queries for run in shown.drawn.values()]
    if all(queries):
        return "query (0 is an image's first)"
    return f"step of the walk{', or query' if any(queries) else ''} (0 is the clean image)"


def _draw_shares(axes: Axes, drawn: Mapping[str, Drawn]) -> None:
    width = 0.8 / len(drawn)
    middles = np.arange(len(GROUPS)) + GAP * (np.arange(len(GROUPS)) >= len(SHARES))
    for number, run in enumerate(drawn.values()):
        if not run.shares:
            continue
        figures = [run.shares[f"{change}_{share}"] for change, share in GROUPS]
        heights = np.array([one.value for one in figures])
        spans = np.abs(np.array([(one.low, one.high) for one in figures]).T - heights)
        places = middles + (number - (len(drawn) - 1) / 2) * width
        axes.bar(
            places, heights, 0.92 * width, color=_look(number)[0], yerr=spans,
            hatch="///" if number >= len(COLOURS) else None, edgecolor="white", linewidth=0,
            error_kw={"elinewidth": 0.9, "ecolor": INK, "alpha": 0.75},
        )  # fmt: skip
        if len(drawn) <= NUMBERED:
            _number(axes, places, figures, upright=len(drawn) > 2)
    axes.margins(y=0.3 if 2 < len(drawn) <= NUMBERED else 0.17)  # room for the numbers
    axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    axes.axvline(len(SHARES) - 0.5 + GAP / 2, color=INK, linewidth=0.8, alpha=0.25)
    axes.set_xticks(middles, [SHARE_TITLES[share] for _, share in GROUPS], fontsize=9)
    axes.tick_params(axis="x", length=0)
    for first, text in ((0, "climb: clean image → ridge"), (len(SHARES), "descent: ridge → last row")):
        axes.annotate(
            text, (middles[first + 1], 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9.5
        )  # fmt: skip
    axes.set_title("What log κ is made of: mean shares, which add up (whiskers: 95 % intervals)", pad=20)
    axes.set_ylabel("change (nats)")


def _number(axes: Axes, places: np.ndarray, figures: Sequence[Interval], upright: bool) -> None:
    """The value of each bar beyond its whisker."""
    for place, one in zip(places, figures, strict=True):
        if np.isnan(one.value):
            continue
        above = round(one.value, 1) >= 0
        axes.annotate(
            f"{one.value:+z.1f}".replace("-", "−"), (place, one.high if above else one.low), textcoords="offset points",
            xytext=(0, 3 if above else -3), ha="center", va="bottom" if above else "top", fontsize=7.5,
            rotation=90 if upright else 0,
        )  # fmt: skip


def _draw_legend(figure: Figure, shown: Comparison) -> None:
    """One line a run, then what the marks mean, where there are any."""
    handles, titles = [], []
    for number, (name, run) in enumerate(shown.drawn.items()):
        colour, line = _look(number)
        long = f" ({run.steps:.0f} step{'' if run.steps == 1 else 's'})" if shown.axis == "fraction" else ""
        handles.append(Line2D([], [], color=colour, linestyle=line, linewidth=2.4))
        titles.append(name + long)
    flips = {run.flips_most for run in shown.drawn.values() if run.flip is not None}
    for most, title in ((True, "median flip"), (False, "median flip (fewer than half of the images)")):
        if most in flips:
            face = INK if most else "white"
            handles.append(
                Line2D([], [], marker="o", linestyle="", color=INK, markerfacecolor=face, markersize=7)
            )
            titles.append(title)
    room = [len(title) + LEGEND_KEY for title in titles]
    columns = len(titles) if sum(room) <= LEGEND_ROOM else max(1, LEGEND_ROOM // max(room))
    figure.legend(
        handles, titles, loc="outside lower left", ncols=columns, frameon=False, fontsize=9, handlelength=3.6
    )


def _look(number: int) -> tuple[str, Line]:
    """Colour and line style of a run by its position."""
    return COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
