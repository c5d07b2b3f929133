"""Several runs beside each other: a row each, and how far each is from the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uncannyvalley.analysis.common_axis import SHARPNESS
from uncannyvalley.analysis.comparison import Comparison, compare_runs
from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.analysis.summary import WalkSummary
from uncannyvalley.analysis.walked import Walked
from uncannyvalley.report.detectors.section import ResultTable
from uncannyvalley.report.drawings.comparison import draw_comparison
from uncannyvalley.report.drawings.figures import to_svg

COLUMNS = {
    "flipped": ("flipped", ".0%"), "ridge": ("ridge (×10, ÷10)", ".0%"), "valley": ("valley after flip", ".0%"),
    "ridge_step": ("ridge at step", ".0f"), "flip_step": ("flip at step", ".0f"), "valley_step": ("valley from step", ".0f"),
    "ridge_height": ("height, nats", ".2f"), "depth": ("depth, nats", ".2f"),
}  # fmt: skip
"""Figure of a summary → title of its column, and format."""

LEGEND = (
    "Examples: those that were not flipped before the walk. Fractions are of them, steps, heights and depths are medians; "
    "in brackets 95 % bootstrap intervals."
)


def summary_row(name: str, walk: WalkSummary, doubts: Sequence[Diagnostic]) -> list[str]:
    """A run's cells in ``overview_table``."""
    figures = [format(getattr(walk, figure), spec) for figure, (_, spec) in COLUMNS.items()]
    return [name, str(walk.examples), *figures, ", ".join(one.name for one in doubts if one.fired) or "none"]


def overview_table(rows: Sequence[Sequence[str]]) -> ResultTable:
    """One row a run, by ``summary_row``."""
    titles = (title for title, _ in COLUMNS.values())
    return ResultTable(
        "The runs beside each other", ["run", "examples", *titles, "doubts that fired"], rows, LEGEND
    )


@dataclass(frozen=True)
class Differences:
    """How far runs are from the first of them, as a table and as a figure; None where they cannot be compared."""

    table: ResultTable | None
    figure_svg: str | None
    notes: Sequence[str] = ()


def differences_of(walked: Mapping[str, Walked], title: str) -> Differences:
    """Each walk minus the first, with intervals; nothing for one walk, or for images beside prompts."""
    if len(walked) < 2:
        return Differences(None, None)
    if len({one.trajectory.subject for one in walked.values()}) > 1:
        note = "Walks of images and of prompts are not compared: their phases mean different things."
        return Differences(None, None, [note])
    found = compare_runs(walked, measures=[SHARPNESS])
    drawable = any(one.curve is not None for one in found.drawn.values())
    return Differences(_difference_table(found), to_svg(draw_comparison(title, found)) if drawable else None)


def _difference_table(found: Comparison) -> ResultTable:
    columns = [
        one.cells() for one in found.contrasts
    ]  # titles repeat: shares of the climb, then of the descent
    apart = [f"{one.second} ({one.reason})" for one in found.contrasts if not one.paired]
    note = "In brackets 95 % bootstrap intervals. Runs on the same images are compared image by image."
    return ResultTable(
        f"Differences from {found.baseline}",
        ["", *(one.second for one in found.contrasts)],
        [[rows[0][0], *(cell for _, cell in rows)] for rows in zip(*columns, strict=True)],
        note + (f" Not paired: {', '.join(apart)}." if apart else ""),
    )
