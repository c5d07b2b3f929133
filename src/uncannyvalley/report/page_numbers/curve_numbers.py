"""The curves that the page draws at once, without unpacking anything: medians, bands, shares and marks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from uncannyvalley.analysis.curves import Curve, ShareCurves
from uncannyvalley.analysis.summary import WalkSummary
from uncannyvalley.report.page_numbers.plain import finite_or_none, plain_list

MARKS = {"ridge": "ridge_step", "flip": "flip_step", "valley": "valley_step"}


def walk_curves(role: str, name: str, curves: Mapping[str, Curve]) -> dict[str, Any]:
    """A walk with its curves by measure; role: attack or control."""
    return {
        "name": name,
        "role": role,
        "title": next((one.walk for one in curves.values()), name),
        "curves": {measure: _curve(one) for measure, one in curves.items()},
    }


def _curve(one: Curve) -> dict[str, Any]:
    columns = {"steps": one.steps, "median": one.median, "low": one.low, "high": one.high}
    return {name: plain_list(np.asarray(values, float)) for name, values in columns.items()}


def share_numbers(shares: ShareCurves) -> dict[str, Any]:
    """The mean change of log κ and its three shares."""
    return {name: plain_list(np.asarray(values, float)) for name, values in vars(shares).items()}


def mark_numbers(summary: WalkSummary) -> dict[str, float | None]:
    """The median steps of ridge, flip and valley."""
    return {name: finite_or_none(getattr(summary, column).value) for name, column in MARKS.items()}
