"""``curvature.parquet``: what ``uncanny measure --out`` left, as the figure over depth."""

import numpy as np
from matplotlib.figure import Figure

from uncannyvalley.errors import InputError
from uncannyvalley.report.drawings.depth import DepthCurve, draw_depth
from uncannyvalley.run.layer_table import LayerTable
from uncannyvalley.storing.parquet import read_table
from uncannyvalley.storing.places import Place

CURVATURE_FILE = "curvature.parquet"

NEEDED = ("example", "log_gini", "layer")

LOG, ERROR = "log_", "_stderr"


def read_curvature(place: Place) -> LayerTable:
    """The table that a command left; InputError where it is damaged, or another table."""
    try:
        table = read_table(place.read_bytes(), place)
    except OSError as error:
        raise InputError(f"{place} cannot be read ({error}); measure again") from error
    names = table.column_names
    if missing := [name for name in NEEDED if name not in names]:
        raise InputError(f"{place} is no table of curvature: it lacks {', '.join(missing)}")
    quantities = tuple(
        name.removeprefix(LOG) for name in names if name.startswith(LOG) and name != "log_gini"
    )
    layers = tuple(dict.fromkeys(table["layer"].to_pylist()))
    if not layers or table.num_rows % len(layers):
        raise InputError(f"{place} has not the same images at each layer; measure again")
    return LayerTable(table, layers, quantities, any(name.endswith(ERROR) for name in names))


def depth_figure(title: str, found: LayerTable) -> Figure:
    """log(quantity / Gini) of each quantity over the layers."""
    curves = [DepthCurve(name.replace("_", " "), _finite(found.per_gini(name))) for name in found.quantities]
    return draw_depth(title, found.layers, curves, "log(quantity / Gini)")


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
