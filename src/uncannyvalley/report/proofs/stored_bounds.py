"""``bounds.json``: the loss of a walk under its bound, and the figure and section that are made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from uncannyvalley.report.detectors.section import ResultTable
from uncannyvalley.report.drawings.figures import to_svg
from uncannyvalley.report.proofs.radii import draw_loss_bounds
from uncannyvalley.report.proofs.section import BoundsSection

BOUNDS_FILE, BOUNDS_FIGURE = "bounds.json", "bounds.png"

TITLE = "The loss under its bound"

MOST_ROWS = 12
"""Steps in the table of a section, evenly spread; the file has all."""

CAPTION = (
    "Loss change ℓ(x + δ) − ℓ(x) against g L|δ| + v (L|δ|)²/2 + (L|δ|)³ D³/(36√3): g, v and D come from the head at the clean image "
    "(gradient, variance of the class weights, diameter), L is a Lipschitz constant of the features. Flatness alone bounds nothing: "
    "the bound is flatness together with L."
)


def bounds_figure(entries: Mapping[str, Any]) -> Figure:
    """Medians over examples, step by step, on a log axis."""
    columns = ("step", "change", "certified", "estimated")
    return draw_loss_bounds(TITLE, *(_column(entries["steps"], name) for name in columns))


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)


def bounds_section(entries: Mapping[str, Any]) -> BoundsSection:
    """The section of a file's entries; KeyError or TypeError where they are none."""
    return BoundsSection(
        title=TITLE,
        lead=_lead(entries),
        figure_svg=to_svg(bounds_figure(entries)),
        caption=CAPTION,
        tables=[_table(entries["steps"]), _constants(entries)],
        assumptions=[*entries["assumptions"]],
        provenance={name: str(value) for name, value in entries["about"].items()},
        command=str(entries["command"]),
        steps=entries["steps"],
    )


def _lead(entries: Mapping[str, Any]) -> str:
    rows = entries["steps"]
    if not rows:
        return "No iterate moved away from its clean image, so there is nothing to bound."
    certified, sampled = (sum(row[f"{name}_broken"] for row in rows) for name in ("certified", "estimated"))
    tightest = max((row["certified_tightness"] or 0.0 for row in rows), default=0.0)
    return (
        f"Held against {entries['examples']} walks of {len(rows)} steps: the certified bound was {_passed(certified)}, and at "
        f"most {tightest:.2g} of it was used. The same formula with a sampled constant, which promises nothing, was "
        f"{_passed(sampled)}."
    )


def _passed(count: int) -> str:
    return "never passed" if count == 0 else f"passed {count} time{'s' if count > 1 else ''}"


def _table(rows: Sequence[Mapping[str, Any]]) -> ResultTable:
    chosen = sorted(
        set(np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).round().astype(int).tolist())
    )
    cells = [_cells(rows[number]) for number in chosen]
    return ResultTable(
        "Loss change and its bound, medians over images in nats",
        ["step", "|δ|, L2", "loss change", "bound", "tightest", "passed", "with sampled L", "passed"],
        cells,
        "Tightest: the largest loss change over its bound, at most 1 where the bound holds. Passed: images whose loss change was "
        "larger." + (f" {len(chosen)} of {len(rows)} steps are shown." if len(chosen) < len(rows) else ""),
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["step"]), significant(row["distance"]), significant(row["change"]), significant(row["certified"]),
        significant(row["certified_tightness"], 2), str(row["certified_broken"]), significant(row["estimated"]), str(row["estimated_broken"]),
    ]  # fmt: skip


def _constants(entries: Mapping[str, Any]) -> ResultTable:
    return ResultTable(
        "Lipschitz constant of the features",
        ["constant", "L, feature units per pixel unit", "that is"],
        [
            [
                "certified",
                significant(entries["lipschitz"]["certified"], 4),
                "an upper bound over all inputs",
            ],
            [
                "sampled",
                significant(entries["lipschitz"]["sampled"], 4),
                "the largest slope found; promises nothing",
            ],
        ],
    )


def significant(value: float | None, digits: int = 3) -> str:
    """A number of a few digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"
