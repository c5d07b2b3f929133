"""What a detector flags as a figure: attack by attack, and where nobody attacks, each share with its interval."""

import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from uncannyvalley.detect.evaluation.rates import Rate
from uncannyvalley.report.detectors.evaluation_tables import worst_first
from uncannyvalley.report.detectors.loading import StoredEvaluation
from uncannyvalley.report.detectors.section import WIDTH
from uncannyvalley.report.drawings.figures import ATTACK_COLOUR, CONTROL_COLOURS, INK, STYLE
from uncannyvalley.report.suffixes.legible import legible

LONGEST = 40
"""Letters of a name that are shown."""

Row = tuple[str, Rate]


def draw_rates(stored: StoredEvaluation) -> Figure:
    """Shares flagged at the promised threshold: of each attack's successful images, the worst attack first, then of clean
    images, everyday changes and controls. Lines are 95 % intervals.
    """
    outcome = stored.outcome
    attacks = [(name, one.flagged) for name, one in worst_first(outcome) if one.counted]
    others = [("held-out clean images", outcome.clean.all)]
    others += [(name, one.all) for name, one in outcome.shifts.items()]
    controls = [(f"{name} (control)", one.all) for name, one in outcome.controls.items()]
    heights = [len(attacks) + 0.8, len(others) + len(controls) + 0.8]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 1.7 + 0.27 * sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        wrapped = textwrap.fill(stored.title, WIDTH * 2)
        figure.suptitle(wrapped, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
        caught, false = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        _draw_rows(caught, attacks, ATTACK_COLOUR, "o", 0)
        _draw_rows(false, others, CONTROL_COLOURS["assist"], "s", 0)
        _draw_rows(false, controls, CONTROL_COLOURS["noise"], "D", len(others))
        caught.set_title("Flagged of each attack's successful images, the worst attack first")
        false.set_title("Flagged although nobody attacks")
        for axes, rows in ((caught, attacks), (false, [*others, *controls])):
            _finish(axes, [name for name, _ in rows], outcome.fpr)
        false.set_xlabel(
            f"share flagged (dotted: the promised {100 * outcome.fpr:.3g} %; lines: 95 % intervals)"
        )
    return figure


def _draw_rows(axes: Axes, rows: Sequence[Row], colour: str, marker: str, first: int) -> None:
    for place, (_, rate) in enumerate(rows, first):
        if rate.out_of:
            axes.plot([rate.low, rate.high], [place, place], "-", color=colour, linewidth=2, alpha=0.55)
            axes.plot([rate.value], [place], marker, color=colour, markersize=6.5, markeredgecolor="white")


def _finish(axes: Axes, names: Sequence[str], promised: float) -> None:
    axes.axvline(promised, color=INK, linewidth=0.9, linestyle=":")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [legible(name, LONGEST) for name in names])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
