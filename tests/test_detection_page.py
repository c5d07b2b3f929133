"""Cells, figure and page of an evaluation."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from uncannyvalley.detect.evaluation.roc import Interval
from uncannyvalley.report.detectors.cells import gain, short_area
from uncannyvalley.report.detectors.section import (
    DetectionSection,
    ResultTable,
    RocLine,
    RocPanel,
    draw_roc,
    render_detection,
)
from uncannyvalley.report.drawings.figures import to_svg


@pytest.mark.parametrize(
    ("cell", "numbers", "text"),
    [
        (short_area, (0.9861, 0.971, 0.994), "0.986 [.97, .99]"),
        (short_area, (1.0, 0.98, 1.0), "1.000 [.98, 1]"),
        (short_area, (0.0, 0.0, 0.2), "0.000 [0, .20]"),
        (short_area, (math.nan,) * 3, "–"),
        (gain, (0.0861, 0.0, 0.2), "+.086 [+.00, +.20]"),
        (gain, (-0.04, -0.084, 0.002), "-.040 [-.08, +.00]"),
        (gain, (math.nan,) * 3, "–"),
    ],
)
def test_cells_are_short_and_true(
    cell: Callable[[Interval], str], numbers: tuple[float, float, float], text: str
) -> None:
    assert cell(Interval(*numbers)) == text


def test_the_figure_shows_no_rate_that_the_images_cannot_tell() -> None:
    rates = np.geomspace(1e-3, 1, 61)
    lines = [RocLine(f"attack {i}", rates, rates ** (0.2 * i), (0.04, 0.5), i == 3) for i in range(1, 9)]
    figure = draw_roc("a title", [RocPanel("one", lines), RocPanel("two", lines[:1])], 0.05, 50)
    left, right = figure.axes
    assert left.get_xscale() == left.get_yscale() == "log"
    assert left.get_xlim()[0] == pytest.approx(1 / 50)
    lowest = min(line.tpr[rates >= 1 / 50].min() for line in lines)
    assert left.get_ylim()[0] == right.get_ylim()[0] == pytest.approx(0.01)
    assert lowest < 0.1
    high = draw_roc("a title", [RocPanel("one", [RocLine("strong", rates, rates**0.1)])], 0.05, 50)
    assert high.axes[0].get_ylim()[0] == pytest.approx(0.1)
    for one in left.lines:
        across = np.asarray(one.get_xdata(), dtype=float)
        assert across.min() >= 1 / 50 * (1 - 1e-6)
    assert len(left.get_legend().get_texts()) == 8
    assert len(right.get_legend().get_texts()) == 1
    assert "<svg" in to_svg(figure)


def test_texts_of_the_page_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    table = ResultTable(hostile, [hostile], [[hostile]], hostile)
    page = render_detection(
        DetectionSection(
            title=hostile, lead=hostile, figure_svg="<svg></svg>", caption=hostile, doubts=[hostile], tables=[table],
            provenance={hostile: hostile}, command=hostile, panels=[], promised=0.05, smallest=0.01,
        )
    )  # fmt: skip
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
