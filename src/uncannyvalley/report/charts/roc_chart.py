"""ROC curves of a detector on log axes, the promised rate as an upright line. The numbers are part of the chart."""

import math
from collections.abc import Sequence
from typing import Any

from uncannyvalley.report.charts.look import START_WIDTH, axis_title, colour, config
from uncannyvalley.report.detectors.section import RocPanel

COLOURS = ("attack", "assist", "norm", "geometry", "gini", "noise")
DASHES = ((1, 0), (7, 3), (2, 3), (9, 3, 2, 3))

EDGES = (1e-1, 1e-2)
"""Where the axis of true-positive rates may begin; what lies below the last is drawn at it, as a logarithm has no zero."""

DECADES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)

ROUNDED = 5
"""Digits of a rate that are kept."""


def roc_chart(panel: RocPanel, promised: float, smallest: float) -> dict[str, Any]:
    """The specification of one panel.

    promised  the detector's false-positive rate
    smallest  the smallest false-positive rate that the clean images can tell; what lies below is left out
    """
    import altair as alt

    titles = [line.title for line in panel.lines]
    lowest = _lower_edge(panel, smallest)
    shapes = alt.layer(
        _straight(smallest, lowest, promised),
        _curves(panel, titles, smallest, lowest),
        _thresholds(panel, titles, lowest),
    )
    drawn = shapes.properties(width=START_WIDTH, height=330, title=panel.title)
    return drawn.to_dict() | {"config": config(), "description": f"ROC curves: {panel.title}"}


def _lower_edge(panel: RocPanel, smallest: float) -> float:
    rates = [float(line.tpr[line.fpr >= smallest].min(initial=1.0)) for line in panel.lines]
    return next((edge for edge in EDGES if min(rates, default=1.0) > edge), EDGES[-1])


def _axes(smallest: float, lowest: float) -> dict[str, Any]:
    import altair as alt

    axis = alt.Axis(format="~%", values=list(DECADES), grid=True)
    across = alt.Scale(type="log", domain=[smallest, 1], nice=False)
    up = alt.Scale(type="log", domain=[lowest, 1], nice=False)
    return {
        "x": alt.X(
            "fpr:Q", scale=across, axis=axis, title=axis_title("false-positive rate (held-out clean images)")
        ),
        "y": alt.Y("tpr:Q", scale=up, axis=axis, title=None),
    }


def _legend() -> Any:
    import altair as alt

    return alt.Legend(title=None, columns=1, labelLimit=290, symbolType="stroke")


def _colours(titles: Sequence[str]) -> Any:
    import altair as alt

    names = [colour(COLOURS[place % len(COLOURS)]) for place in range(len(titles))]
    return alt.Color(
        "line:N", sort=[*titles], scale=alt.Scale(domain=[*titles], range=names), legend=_legend()
    )


def _curves(panel: RocPanel, titles: Sequence[str], smallest: float, lowest: float) -> Any:
    import altair as alt

    dashes = [list(DASHES[place // len(COLOURS) % len(DASHES)]) for place in range(len(titles))]
    rows = [
        {"line": line.title, "strong": line.strong, "fpr": round(float(fpr), ROUNDED), "tpr": round(max(float(tpr), lowest), ROUNDED)}
        for line in panel.lines
        for fpr, tpr in zip(line.fpr, line.tpr, strict=True)
        if fpr >= smallest * (1 - 1e-9) and math.isfinite(tpr)
    ]  # fmt: skip
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(interpolate="step-after", clip=True)
        .encode(
            **_axes(smallest, lowest),
            color=_colours(titles),
            strokeDash=alt.StrokeDash(
                "line:N", sort=[*titles], scale=alt.Scale(domain=[*titles], range=dashes), legend=_legend()
            ),
            strokeWidth=alt.condition("datum.strong", alt.value(3), alt.value(1.7)),
        )
    )


def _thresholds(panel: RocPanel, titles: Sequence[str], lowest: float) -> Any:
    """Dots where the promised threshold lies."""
    import altair as alt

    dots = [
        {"line": line.title, "fpr": line.promised[0], "tpr": max(line.promised[1], lowest)}
        for line in panel.lines
        if line.promised is not None and line.promised[1] > 0
    ]
    look: dict[str, Any] = {
        "size": 60,
        "opacity": 1,
        "filled": True,
        "stroke": colour("card"),
        "strokeWidth": 1,
        "clip": True,
    }
    return (
        alt.Chart(alt.Data(values=dots))
        .mark_point(**look)
        .encode(x="fpr:Q", y="tpr:Q", color=_colours(titles))
    )


def _straight(smallest: float, lowest: float, promised: float) -> Any:
    """Upright the promised rate, and chance, which is straight in logs too."""
    import altair as alt

    first = max(smallest, lowest)
    chance = alt.Data(values=[{"fpr": first, "tpr": first}, {"fpr": 1, "tpr": 1}])
    dotted: dict[str, Any] = {"color": colour("dim"), "strokeDash": [1, 3], "strokeWidth": 1}
    return alt.layer(
        alt.Chart(alt.Data(values=[{"fpr": promised}]))
        .mark_rule(color=colour("dim"), strokeDash=[2, 3])
        .encode(x="fpr:Q"),
        alt.Chart(chance).mark_line(**dotted).encode(x="fpr:Q", y="tpr:Q"),
    )
