"""How charts look: colours by name, dashes, sizes. The colours themselves are in ``templates/look.css.j2``.

A colour is written as the CSS variable that holds it. Charts are drawn as SVG, whose attributes take variables, so that
one drawing serves light, dark and printed pages.
"""

import textwrap
from typing import Any

CONTROL_NAMES = {
    "noise": "noise", "random-tokens": "noise", "assist": "assist", "soft-prompt": "assist",
}  # fmt: skip
"""Control walks → the name of their colour."""

OTHER_WALKS = ("noise", "assist", "norm", "geometry")
"""Names of colours for walks that have none of their own, by position."""

SHARES = {
    "total": ("log κ", "ink", (1, 0)), "gini": ("Gini (confidence)", "gini", (1, 0)),
    "norm": ("norm", "norm", (7, 3)), "geometry": ("geometry of W", "geometry", (2, 3)),
}  # fmt: skip
"""Share → its title, the name of its colour and its dashes."""

Y_AXIS = 38
"""Pixels that the labels of an upright axis take, the same in all panels, so that their steps stand beneath each other."""

AXIS_LETTERS = 46
"""Letters in a line of an axis's title, so that it fits a phone."""

START_WIDTH = 640
"""Of a chart before the page knows its own."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

SOLID = (1, 0)
"""The dashes of a solid line."""


def colour(name: str) -> str:
    """A colour of the page by its name."""
    return f"var(--{name})"


def axis_title(text: str) -> list[str]:
    """The title of an axis in lines."""
    return textwrap.wrap(text, AXIS_LETTERS)


def walk_look(name: str, position: int) -> tuple[str, tuple[int, int]]:
    """Name of the colour and dashes of a walk: the attack comes first, whatever its name; controls are dashed."""
    if position == 0:
        return "attack", SOLID
    dashes = ((7, 4), (2, 3), (9, 3), (4, 4))[(position - 1) % 4]
    return CONTROL_NAMES.get(name, OTHER_WALKS[(position - 1) % len(OTHER_WALKS)]), dashes


def config() -> dict[str, Any]:
    """Vega's configuration: quiet axes, titles at the left, nothing for assistive technology but the description."""
    return {
        "background": "transparent",
        "font": FONT,
        "aria": True,
        "mark": {"aria": False},
        "view": {"stroke": "transparent"},
        "title": {
            "anchor": "start", "frame": "group", "fontSize": 13, "fontWeight": 600, "color": colour("ink"), "offset": 8,
            "dx": -Y_AXIS, "limit": {"expr": f"width + {Y_AXIS}"},
        },
        "axis": {
            "labelColor": colour("dim"), "titleColor": colour("dim"), "domainColor": colour("line"),
            "tickColor": colour("line"), "gridColor": colour("grid"), "labelFontSize": 11, "titleFontSize": 11.5,
            "titleFontWeight": 400, "aria": False, "labelOverlap": True, "labelSeparation": 6,
        },
        "axisX": {"grid": False, "tickCount": 8},
        "axisY": {"domain": False, "ticks": False, "tickCount": 5, "minExtent": Y_AXIS, "maxExtent": Y_AXIS, "labelPadding": 6},
        "legend": {
            "orient": "bottom", "direction": "horizontal", "labelColor": colour("ink"), "titleColor": colour("dim"),
            "labelFontSize": 11.5, "symbolStrokeWidth": 2.4, "symbolSize": 240, "aria": False, "labelLimit": 300,
        },
    }  # fmt: skip
