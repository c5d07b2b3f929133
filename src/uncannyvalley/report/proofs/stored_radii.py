"""``radii.json``: certified radii beside what was only sampled or found, and the figure and section made of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from uncannyvalley.report.detectors.section import ResultTable
from uncannyvalley.report.drawings.figures import to_svg
from uncannyvalley.report.proofs.radii import Radii, draw_radii
from uncannyvalley.report.proofs.section import BoundsSection
from uncannyvalley.report.proofs.stored_bounds import significant

RADII_FILE, RADII_FIGURE = "radii.json", "radii.png"

CAPTION = (
    "Share of all images whose label holds within the radius: solid lines are proved, the dashed line would follow from a sampled "
    "constant and promises nothing, the dash-dotted line is what an attack has not yet broken."
)


def radii_figure(entries: Mapping[str, Any]) -> Figure:
    """Certified accuracy over the radius."""
    shown = [
        Radii(f"{one['radius']} ({one['status']})", one["status"].split(",")[0], _values(one))
        for one in entries["radii"]
    ]
    return draw_radii(_title(entries), shown, entries["images"])


def _values(one: Mapping[str, Any]) -> np.ndarray:
    """Of the images that are classified correctly; null stands for a label that nothing flipped."""
    return np.array([np.inf if value is None else value for value in one["values"]], dtype=float)


def _title(entries: Mapping[str, Any]) -> str:
    return f"Certified radii, {entries['about']['model']}"


def radii_section(entries: Mapping[str, Any]) -> BoundsSection:
    """The section of a file's entries; KeyError or TypeError where they are none."""
    return BoundsSection(
        title=_title(entries),
        lead=_lead(entries),
        figure_svg=to_svg(radii_figure(entries)),
        caption=CAPTION,
        tables=[_quantiles(entries), *_constants(entries)],
        assumptions=[*entries["assumptions"]],
        provenance={name: str(value) for name, value in entries["about"].items()},
        command=str(entries["command"]),
    )


def _lead(entries: Mapping[str, Any]) -> str:
    right = f"{entries['correct']} of {entries['images']} images are classified correctly"
    if entries["certified_above_zero"] is None:
        return f"{right}. No radius is certified here: the numbers are estimates, which promise nothing."
    certified = f"{entries['certified_above_zero']} have a certified radius above 0"
    if entries["violations"] is None:
        return f"{right}, of which {certified}. No attack was run beside them."
    ratio = entries["median_certified_over_attacked"]
    beside = (
        ""
        if ratio is None
        else f", and the median certified radius is {100 * ratio:.2g} % of the attacked one"
    )
    return (
        f"{right}, of which {certified}. An attack flipped {entries['violations']} of them inside it{beside}."
    )


def _quantiles(entries: Mapping[str, Any]) -> ResultTable:
    rows = [
        [one["radius"], one["status"], *(significant(one[name], 4) for name in ("q10", "q50", "q90"))]
        for one in entries["radii"]
    ]
    return ResultTable(
        "Radii in L2 pixels, of the images that are classified correctly",
        ["radius", "status", "10 %", "median", "90 %"],
        rows,
        "–: not flipped within the largest ball that was tried." if any("–" in row for row in rows) else "",
    )


def _constants(entries: Mapping[str, Any]) -> list[ResultTable]:
    constants = entries["lipschitz"]
    rows = [["sampled", significant(constants["sampled"], 4)]]
    if constants["certified"] is not None:
        rows = [["certified", significant(constants["certified"], 4)], *rows]
    tables = [
        ResultTable(
            "Lipschitz constant of the features", ["constant", "L, feature units per pixel unit"], rows
        )
    ]
    largest = sorted(constants["factors"], key=lambda one: -one[1])[:5]
    if largest:
        factors = [[str(name), significant(factor)] for name, factor in largest]
        tables.append(ResultTable("Its largest factors", ["operation", "multiplies L by"], factors))
    return tables
