"""Layers that the panels of a walk have in common: curves with their bands, upright lines, the axis of steps."""

from collections.abc import Sequence
from typing import Any

from uncannyvalley.report.charts.look import colour, walk_look

TOLD = ("step", "median", "low", "high")
"""What a tooltip says of a point of a curve."""


def at(field: str, axis: list[str] | None = None) -> Any:
    """The shared axis of steps; its title stands beneath the last panel alone."""
    import altair as alt

    return alt.X(f"{field}:Q", title=axis, scale=alt.Scale(nice=False))


def named_scale(domain: Sequence[str], colours: Sequence[str]) -> Any:
    """Names → the colours of the page that have these names."""
    import altair as alt

    return alt.Scale(domain=list(domain), range=[colour(one) for one in colours])


def rules(data: str, axis: list[str] | None = None) -> Any:
    """Upright lines: dotted at the phases' medians, solid at the step shown."""
    import altair as alt

    look: dict[str, Any] = {"strokeWidth": 1.2, "color": colour("chosen")}
    if data == "marks":
        look = {"strokeWidth": 1, "color": colour("dim"), "strokeDash": [2, 3]}
    return alt.Chart(alt.NamedData(data)).mark_rule(**look).encode(x=at("at", axis))


def curves(measure: str, walks: Sequence[str], padding: int, axis: list[str] | None = None) -> list[Any]:
    """Bands and medians of every walk, the ghost of what was recorded, and the chosen example.

    padding  pixels left free above and below
    """
    import altair as alt

    looks = [walk_look(name, position) for position, name in enumerate(walks)]
    by_walk = alt.Color("walk:N", legend=None, scale=named_scale(walks, [name for name, _ in looks]))
    dashes = alt.StrokeDash(
        "walk:N", legend=None, scale=alt.Scale(domain=list(walks), range=[list(one) for _, one in looks])
    )
    scale = alt.Scale(zero=False, padding=padding, nice=False)
    steps = at("step", axis)
    says = [alt.Tooltip("walk:N")] + [alt.Tooltip(f"{one}:Q", format=".4~g") for one in TOLD]

    def chart(data: str) -> Any:
        only = alt.FieldEqualPredicate(field="measure", equal=measure)
        return alt.Chart(alt.NamedData(data)).transform_filter(only)

    def height(field: str) -> Any:
        return alt.Y(f"{field}:Q", scale=scale, title=None)

    return [
        chart("curves").mark_area(opacity=0.14).encode(x=steps, y=height("low"), y2="high", color=by_walk),
        chart("ghost").mark_line(color=colour("ghost"), strokeWidth=1.6).encode(x=steps, y=height("median")),
        chart("curves")
        .mark_line(strokeWidth=2.4)
        .encode(x=steps, y=height("median"), color=by_walk, strokeDash=dashes),
        chart("chosen").mark_line(color=colour("card"), strokeWidth=4).encode(x=steps, y=height("value")),
        chart("chosen").mark_line(color=colour("ink"), strokeWidth=1.5).encode(x=steps, y=height("value")),
        chart("curves")
        .mark_point(opacity=0, size=120, filled=True)
        .encode(x=steps, y=height("median"), tooltip=says),
    ]
