"""Loss changes along a walk under their bounds, on a log axis: certified solid, estimated dashed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from uncannyvalley.report.charts.look import START_WIDTH, colour, config

LINES = {
    "certified": ("bound, certified L", "assist", (1, 0)),
    "estimated": ("same formula, sampled L (no promise)", "noise", (7, 4)),
    "change": ("what came", "attack", (1, 0)),
}  # fmt: skip
"""Column of a step → title of its line, the name of its colour and its dashes."""


def bounds_chart(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over examples, nats; values that are not positive have no place on the axis and are left out.

    steps  one mapping a step, with ``step`` and any of the columns of LINES
    """
    import altair as alt

    rows = [
        {"line": title, "step": float(one["step"]), "value": float(one[column])}
        for column, (title, _, _) in LINES.items()
        for one in steps
        if one.get(column) is not None and math.isfinite(one[column]) and one[column] > 0
    ]
    titles, colours, dashes = zip(*LINES.values(), strict=True)
    legend = alt.Legend(title=None, columns=1, labelLimit=290)
    drawn = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2.2)
        .encode(
            x=alt.X("step:Q", title="step of the walk"),
            y=alt.Y("value:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~e"), title=None),
            color=alt.Color(
                "line:N", sort=titles, legend=legend,
                scale=alt.Scale(domain=titles, range=[colour(name) for name in colours]),
            ),
            strokeDash=alt.StrokeDash(
                "line:N", sort=titles, legend=legend,
                scale=alt.Scale(domain=titles, range=[list(one) for one in dashes]),
            ),
        )
        .properties(width=START_WIDTH, height=260, title="Loss change, nats (medians over examples)")
    )  # fmt: skip
    return drawn.to_dict() | {"config": config(), "description": "Loss changes under their bounds"}
