"""Runs of different lengths over one axis: steps, or fractions of each example's walk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uncannyvalley.analysis.contrast import quantities
from uncannyvalley.analysis.curves import BAND, Curve
from uncannyvalley.analysis.phase_table import SHARES
from uncannyvalley.analysis.summary import Figure, interval
from uncannyvalley.analysis.walked import Walked
from uncannyvalley.trajectory import last_rows

SHARPNESS = "log_relative_sharpness"

AXES = ("step", "fraction")
SAME_LENGTH = 5
"""Walks whose lengths differ by more than this factor share an axis as fractions of themselves."""

GRID = 201
"""Points of a curve over the fraction of a walk."""

STILL_WALKED = 0.5
"""Curves over steps are drawn where at least this share of the images was recorded."""


@dataclass(frozen=True)
class Drawn:
    """One run in the figure: log κ, the median flip on its curve (x, y), and mean shares with intervals.

    steps: median last row of its walks. flip: None where no label flipped; ``flips_most`` where at least half did.
    cut: the curve stops before the longest walks do, where fewer than half of the images are left. shares: as
    ``climb_gini``. queries: whether rows are the queries of a watched attack.
    """

    steps: float
    curve: Curve | None
    flip: tuple[float, float] | None
    flips_most: bool
    cut: bool
    shares: Mapping[str, Figure]
    queries: bool


def common_axis(runs: Sequence[Walked]) -> str:
    """Steps where the walks' median lengths are alike, else fractions."""
    lengths = [max(run.length, 1.0) for run in runs]
    return "step" if max(lengths) <= SAME_LENGTH * min(lengths) else "fraction"


def drawn(name: str, run: Walked, axis: str) -> Drawn:
    """What the figure shows of a run, over one of AXES; no curve where no correct image has a log κ."""
    found = quantities(run.columns)
    flips, curve, cut = found["flip_step"], None, False
    if SHARPNESS in run.trajectory.measures and len(flips):
        values = run.of_correct(SHARPNESS)
        ends = last_rows(values)
        if axis == "fraction":
            flips = flips / np.maximum(ends, 1)
            places, values = np.linspace(0, 1, GRID), over_fractions(values)
        else:
            kept = (~np.isnan(values)).mean(axis=0) >= STILL_WALKED
            places, values = np.flatnonzero(kept).astype(float), values[:, kept]
            cut = bool(places[-1] < ends.max())
        low, median, high = np.nanpercentile(values, [BAND[0], 50, BAND[1]], axis=0)
        curve = Curve(name, SHARPNESS, run.trajectory.unit(SHARPNESS), places, median, low, high)
    parts = [f"{change}_{one}" for change in ("climb", "descent") for one in SHARES]
    return Drawn(
        steps=run.length,
        curve=curve,
        flip=None if curve is None else _median_flip(curve, flips),
        flips_most=len(flips) > 0 and float(found["flipped"].mean()) >= 0.5,
        cut=cut,
        shares={part: interval(found[part], np.mean) for part in parts if part in found},
        queries=run.trajectory.is_observed,
    )


def _median_flip(curve: Curve, flips: np.ndarray) -> tuple[float, float] | None:
    if np.isnan(flips).all():
        return None
    at = float(np.nanmedian(flips))
    return at, float(np.interp(at, curve.steps, curve.median))


def over_fractions(values: np.ndarray) -> np.ndarray:
    """(examples, rows) → (examples, GRID): each example from its first row to its last, straight between recorded rows.

    Beside a value that is not finite there is no straight line: the row before is taken.
    """
    recorded, rows = ~np.isnan(values), np.arange(values.shape[1])
    before = np.maximum.accumulate(np.where(recorded, rows, 0), axis=1)
    after = np.minimum.accumulate(np.where(recorded, rows, rows[-1])[:, ::-1], axis=1)[:, ::-1]
    place = np.linspace(0, 1, GRID) * last_rows(values)[:, None]
    everyone = np.arange(len(values))[:, None]
    low = before[everyone, np.floor(place).astype(int)]
    high = after[everyone, np.ceil(place).astype(int)]
    start, end = values[everyone, low], values[everyone, high]
    share = (place - low) / np.maximum(high - low, 1)
    with np.errstate(invalid="ignore"):
        between = start + share * (end - start)
    return np.where(np.isfinite(between), between, np.where(share == 1, end, start))
