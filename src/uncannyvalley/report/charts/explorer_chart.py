"""Charts of one example: log κ along its walk over the attack's band, and its probabilities at one step.

Data sets, filled by ``scripts/explorer.js``:
band    step, median, low, high of the attack       example  step, value, shown (the step of the slider)
rule    at                                          bars     name, probability, kind
"""

from functools import cache
from typing import Any

from uncannyvalley.report.charts.look import START_WIDTH, axis_title, colour, config

KINDS = {"label": "label", "predicted": "attack", "other": "bar"}
"""What a bar stands for → the name of its colour."""

ROW = 19
"""Height of one bar in pixels."""


@cache
def example_chart(axis: str) -> dict[str, Any]:
    """log κ of the chosen example."""
    import altair as alt

    title = axis_title(axis)
    scale = alt.Scale(zero=False)
    band = alt.Chart(alt.NamedData("band")).encode(x=alt.X("step:Q", title=title))
    line = alt.Chart(alt.NamedData("example")).encode(
        x=alt.X("step:Q", title=title, scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", scale=scale, title=None),
    )
    layers = alt.layer(
        band.mark_area(opacity=0.16, color=colour("attack")).encode(
            y=alt.Y("low:Q", scale=scale, title=None), y2="high"
        ),
        alt.Chart(alt.NamedData("rule"))
        .mark_rule(color=colour("chosen"), strokeWidth=1.2)
        .encode(x=alt.X("at:Q", title=title)),
        line.mark_line(color=colour("ink"), strokeWidth=1.8),
        line.transform_filter(alt.FieldEqualPredicate(field="shown", equal=True)).mark_point(
            filled=True, size=90, opacity=1, color=colour("chosen"), stroke=colour("card"), strokeWidth=1.5
        ),
    ).properties(width=START_WIDTH, height=150, title="Log κ of this example over the band")
    return layers.to_dict() | {"config": config(), "description": "log κ of the chosen example"}


@cache
def probabilities_chart() -> dict[str, Any]:
    """Probabilities of the classes at the step shown, the label and the prediction told apart."""
    import altair as alt

    colours = alt.Scale(domain=list(KINDS), range=[colour(one) for one in KINDS.values()])
    bars = (
        alt.Chart(alt.NamedData("bars"))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X(
                "probability:Q",
                scale=alt.Scale(domain=[0, 1]),
                title=None,
                axis=alt.Axis(format="%", tickCount=4),
            ),
            y=alt.Y(
                "name:N", sort=None, title=None, axis=alt.Axis(minExtent=0, maxExtent=120, labelLimit=110)
            ),
            color=alt.Color("kind:N", scale=colours, legend=None),
            tooltip=[alt.Tooltip("name:N"), alt.Tooltip("probability:Q", format=".4~g")],
        )
        .properties(
            width=START_WIDTH,
            height=alt.Step(ROW),
            title=alt.TitleParams("Probabilities at this step", frame="bounds", dx=0),
        )
    )
    return bars.to_dict() | {"config": config(), "description": "probabilities of the classes"}
