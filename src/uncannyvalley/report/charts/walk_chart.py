"""The walk as a chart: log κ with its phases, what it is made of, and the other measures on one axis of steps.

The chart holds no numbers. Its named data sets are filled by ``scripts/walk.js``:
curves  walk, measure, step, median, low, high          shares  share, step, value
ghost   measure, step, median: what was recorded, while another head is replayed
chosen  measure, step, value: one example                rule   at: the step that the explorer shows
phases  phase, start, end                                marks  names, at, line
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from uncannyvalley.analysis.common_axis import SHARPNESS
from uncannyvalley.report.charts.curve_layers import at, curves, named_scale, rules
from uncannyvalley.report.charts.look import SHARES, SOLID, START_WIDTH, axis_title, colour, config, walk_look

PHASES = ("climb", "flip", "valley")
SHARPNESS_HEIGHT, SHARES_HEIGHT, OTHER_HEIGHT = 270, 150, 110
UNITS = {"log": "nats", "probability": "", "1": ""}
"""Units of measures that titles say otherwise, or not at all."""

MOST_MARKS = 3
"""Names of marks that stand beneath each other: ridge, flip, valley."""

NARROW = 380
"""Pixels below which the shares' key has two columns."""

HEADROOM, MARGIN = 22, 6
"""Pixels left free above and below the curves: of log κ for the names of the marks, of the others so that they show whole."""


@dataclass(frozen=True)
class Shape:
    """What of a run its chart depends on. measures: (name, title) from the uppermost panel down."""

    walks: tuple[str, ...]
    measures: tuple[tuple[str, str], ...]
    axis: str


def walk_chart(run: Mapping[str, Any]) -> dict[str, Any]:
    """The specification (Vega-Lite) for a run of the page's numbers that has log κ; see ``report/page_numbers``."""
    names = [SHARPNESS, *(name for name in run["walks"][0]["curves"] if name != SHARPNESS)]
    shape = Shape(
        tuple(one["name"] for one in run["walks"]),
        tuple((name, _titled(run, name)) for name in names),
        run["axis"],
    )
    return _chart_of(shape) | {"config": config(), "description": f"The walk of {run['title']}"}


def walk_key(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The key beside the chart, an entry a walk: its name, title, the name of its colour, whether it is dashed."""
    entries = []
    for position, walk in enumerate(run["walks"]):
        look, dashes = walk_look(walk["name"], position)
        title = walk.get("title") or walk["name"]
        entries.append({"name": walk["name"], "title": title, "colour": look, "dashed": dashes != SOLID})
    return entries


def _titled(run: Mapping[str, Any], measure: str) -> str:
    told = run["measures"].get(measure, {})
    title = told.get("title") or measure.replace("_", " ")
    unit = UNITS.get(told.get("unit", ""), told.get("unit", ""))
    return f"{title[:1].upper()}{title[1:]}{f', {unit}' if unit else ''}"


@cache
def _chart_of(shape: Shape) -> dict[str, Any]:
    """Altair holds every part against its schema, which takes longer than drawing: once for all runs of a shape."""
    import altair as alt

    first, *others = shape.measures
    titles: list[list[str] | None] = [None] * (1 + len(others))
    titles[-1] = axis_title(shape.axis)
    panels = [_sharpness(shape, *first), _shares(titles[0])]
    for (measure, title), axis in zip(others, titles[1:], strict=True):
        layers = [rules("marks", axis), *curves(measure, shape.walks, MARGIN, axis), rules("rule", axis)]
        panels.append(_panel(layers, OTHER_HEIGHT, title))
    together = alt.vconcat(*panels, spacing=14)
    return together.resolve_scale(x="shared", color="independent", strokeDash="independent").to_dict()


def _panel(layers: Sequence[Any], height: int, title: str) -> Any:
    import altair as alt

    drawn = alt.layer(*layers).resolve_scale(color="independent", strokeDash="independent")
    return drawn.properties(height=height, width=START_WIDTH, title=title)


def _sharpness(shape: Shape, measure: str, title: str) -> Any:
    import altair as alt

    shades = alt.Color("phase:N", legend=None, scale=named_scale(PHASES, [f"phase-{one}" for one in PHASES]))
    shading = (
        alt.Chart(alt.NamedData("phases")).mark_rect(opacity=1).encode(x=at("start"), x2="end", color=shades)
    )
    halo: dict[str, Any] = {"stroke": colour("card"), "strokeWidth": 4, "strokeJoin": "round"}
    names = [
        alt.Chart(alt.NamedData("marks"))
        .transform_filter(alt.FieldEqualPredicate(field="line", equal=line))
        .mark_text(align="left", dx=5, fontSize=11.5, fontWeight=600, color=colour("ink"), **around)
        .encode(x=at("at"), y=alt.value(10 + 15 * line), text="names:N")
        for line in range(MOST_MARKS)
        for around in (halo, {})
    ]
    layers = [shading, rules("marks"), *curves(measure, shape.walks, HEADROOM), rules("rule"), *names]
    return _panel(layers, SHARPNESS_HEIGHT, title)


def _shares(axis: list[str] | None) -> Any:
    import altair as alt

    titles, names, dashes = zip(*SHARES.values(), strict=True)
    legend = alt.Legend(title=None, columns=alt.ExprRef(f"width < {NARROW} ? 2 : {len(SHARES)}"))
    dashing = alt.Scale(domain=list(titles), range=[list(one) for one in dashes])
    lines = (
        alt.Chart(alt.NamedData("shares"))
        .mark_line(strokeWidth=2.2)
        .encode(
            x=at("step", axis),
            y=alt.Y("value:Q", title=None),
            color=alt.Color("share:N", scale=named_scale(titles, names), sort=list(titles), legend=legend),
            strokeDash=alt.StrokeDash("share:N", scale=dashing, sort=list(titles), legend=legend),
        )
    )
    layers = [rules("marks", axis), lines, rules("rule", axis)]
    return _panel(layers, SHARES_HEIGHT, "Change of log κ, and its shares (mean)")
