"""Several recorded walks side by side: phases, measures, differences from one of them, and curves for a figure.

Everything is computed here, from trajectories alone; the figure and the command line show it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from uncannyvalley.analysis.contrast import NOTHING, Contrast, contrast, quantities
from uncannyvalley.analysis.curves import BAND, Curve
from uncannyvalley.analysis.diagnostics import Diagnostic
from uncannyvalley.analysis.phase_table import CHANGES, NEEDED, SHARES, Phases, difference, phases
from uncannyvalley.analysis.summary import Figure, PhaseSummary, WalkSummary, interval, summarise
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.trajectory import Trajectory

SHARPNESS = "log_relative_sharpness"
COMPARED_MEASURES = (SHARPNESS, "log_gini", "feature_norm", "margin", "confidence")

AXES = ("step", "fraction")
SAME_LENGTH = 5
"""Walks whose lengths differ by more than this factor share an axis as fractions of themselves."""

GRID = 201
"""Points of a curve over the fraction of a walk."""

STILL_WALKED = 0.5
"""Curves over steps are drawn where at least this share of the images was recorded."""


@dataclass(frozen=True)
class Walked:
    """A recorded run to compare. ``data`` names its images: runs with equal names are compared image by image."""

    trajectory: Trajectory
    data: str
    controls: Mapping[str, Trajectory] = field(default_factory=dict)
    diagnostics: Sequence[Diagnostic] = ()


@dataclass(frozen=True)
class Moves:
    """Medians of one measure at the clean image, at the flip and at an example's last row, and of its change."""

    clean: Figure
    flip: Figure
    end: Figure
    change: Figure


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


@dataclass(frozen=True)
class Comparison:
    """Runs by name, in the order given; see the classes of its parts.

    measures: measure → run → Moves, None where the run lacks it. axis: of ``drawn``, step or fraction.
    """

    baseline: str
    walks: tuple[WalkSummary, ...]
    controls: Mapping[str, tuple[WalkSummary, ...]]
    measures: Mapping[str, Mapping[str, Moves | None]]
    units: Mapping[str, str]
    contrasts: tuple[Contrast, ...]
    axis: str
    drawn: Mapping[str, Drawn]
    doubts: Mapping[str, tuple[Diagnostic, ...]]
    notes: tuple[str, ...]

    def phase_table(self) -> PhaseSummary:
        """The phases of every run, each with its controls behind it."""
        walks = [one for walk in self.walks for one in (walk, *self.controls.get(walk.name, ()))]
        return PhaseSummary(tuple(walks), (), ())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for machines; None for what does not exist."""
        plain = asdict(self)
        return json.loads(json.dumps(plain, default=np.ndarray.tolist), parse_constant=lambda _: None)


@np.errstate(invalid="ignore")  # log κ may be −inf, and so may its changes
def compare_runs(
    runs: Mapping[str, Walked],
    *,
    baseline: str | None = None,
    measures: Sequence[str] | None = None,
    axis: str | None = None,
    controls: bool = False,
) -> Comparison:
    """Phases, measures and differences from ``baseline`` (the first run if left out) with 95 % intervals.

    measures   shown at clean, flip and end; COMPARED_MEASURES that every run recorded if left out
    axis       step, or fraction of each example's walk; by the lengths of the walks if left out
    controls   whether the control walks are summarised too; doubts read them in any case

    Only examples that were classified correctly before the walk count. Runs without the measures that phases need are
    compared on the rest, and ``notes`` say so. Raises InputError for fewer than two runs and unknown names.
    """
    if len(runs) < 2:
        raise InputError(f"a comparison takes at least 2 runs, got {len(runs)}")
    first = next(iter(runs)) if baseline is None else baseline
    if first not in runs:
        raise unknown_name("baseline", first, runs)
    if axis is not None and axis not in AXES:
        raise unknown_name("axis", axis, AXES)
    chosen = _chosen_measures(runs, measures)
    found = {name: _phases_of(run) for name, run in runs.items()}
    columns = {name: phase_columns(run.trajectory, found[name]) for name, run in runs.items()}
    along = axis or _axis_of([run.trajectory for run in runs.values()])
    return Comparison(
        baseline=first,
        walks=tuple(_summary(name, one) for name, one in columns.items()),
        controls={name: _controls(name, run, found[name]) for name, run in runs.items() if controls},
        measures={one: {name: _moves(run.trajectory, one) for name, run in runs.items()} for one in chosen},
        units={one: _unit(runs, one) for one in chosen},
        contrasts=tuple(
            contrast(
                (first, columns[first]),
                (name, columns[name]),
                same_images=runs[name].data == runs[first].data,
            )
            for name in runs
            if name != first
        ),
        axis=along,
        drawn={name: _drawn(name, run.trajectory, columns[name], along) for name, run in runs.items()},
        doubts={name: _doubts(run, found[name]) for name, run in runs.items()},
        notes=tuple(_notes(runs, COMPARED_MEASURES if measures is None else chosen)),
    )


def _phases_of(run: Walked) -> Phases | None:
    """The phases of a run beside its controls; None where sharpness or its parts were not recorded."""
    return None if _lacking(run.trajectory) else phases(run.trajectory, run.controls)


def phase_columns(trajectory: Trajectory, found: Phases | None) -> dict[str, np.ndarray]:
    """The columns of a phase table; of a walk without phases only example and flip_step.

    Examples that have no clean row are left out: a watched attack need not ask about each.
    """
    wrong = trajectory.column("adversarial")
    if found is not None:
        columns = {name: found.column(name) for name in found.table.column_names}
    else:
        flips = wrong == 1
        flip = np.where(flips.any(axis=1), flips.argmax(axis=1).astype(float), np.nan)
        columns = {"example": trajectory.examples, "flip_step": flip}
    there = ~np.isnan(wrong[:, 0])
    return {name: values[there] for name, values in columns.items()}


def _lacking(trajectory: Trajectory) -> list[str]:
    return [name for name in NEEDED if name not in trajectory.measures]


def _summary(name: str, columns: Mapping[str, np.ndarray]) -> WalkSummary:
    if "depth" in columns:
        return summarise(name, columns)
    found = quantities(columns)
    shares = {
        change: dict.fromkeys((change, *(f"{change}_{one}" for one in SHARES)), math.nan)
        for change in CHANGES
    }
    return WalkSummary(
        name, len(found["flipped"]), int((columns["flip_step"] == 0).sum()),
        flipped=interval(found["flipped"], np.mean), ridge=NOTHING, valley=NOTHING, below=NOTHING,
        flip_step=interval(found["flip_step"], np.nanmedian), ridge_step=NOTHING, valley_step=NOTHING,
        ridge_height=NOTHING, depth=NOTHING, shares=shares,
    )  # fmt: skip


def _controls(name: str, run: Walked, found: Phases | None) -> tuple[WalkSummary, ...]:
    beside = dict.fromkeys(run.controls) if found is None else found.controls
    return tuple(
        _summary(f"{control} beside {name}", phase_columns(run.controls[control], one))
        for control, one in beside.items()
    )


def _doubts(run: Walked, found: Phases | None) -> tuple[Diagnostic, ...]:
    """Those that fired."""
    seen = () if found is None else found.diagnostics
    return tuple(one for one in (*seen, *run.diagnostics) if one.fired)


def _chosen_measures(runs: Mapping[str, Walked], wanted: Sequence[str] | None) -> list[str]:
    known = {name: None for run in runs.values() for name in run.trajectory.measures}
    for name in wanted or ():
        if name not in known:
            raise unknown_name("measure in these runs", name, known)
    if wanted is not None:
        return list(dict.fromkeys(wanted))
    shared = [name for name in known if all(name in run.trajectory.measures for run in runs.values())]
    return [name for name in COMPARED_MEASURES if name in shared]


def _unit(runs: Mapping[str, Walked], measure: str) -> str:
    return next(run.trajectory.unit(measure) for run in runs.values() if measure in run.trajectory.measures)


def _moves(trajectory: Trajectory, measure: str) -> Moves | None:
    """How a measure moved, over the examples that were classified correctly before the walk."""
    if measure not in trajectory.measures:
        return None
    wrong = trajectory.column("adversarial")
    correct = wrong[:, 0] == 0
    values, wrong = trajectory.column(measure)[correct], wrong[correct] == 1
    everyone = np.arange(len(values))
    at_flip = np.where(wrong.any(axis=1), values[everyone, wrong.argmax(axis=1)], np.nan)
    end = values[everyone, last_rows(values)]
    ends = {"clean": values[:, 0], "flip": at_flip, "end": end, "change": difference(end, values[:, 0])}
    return Moves(**{name: interval(one, np.nanmedian) for name, one in ends.items()})


def last_rows(values: np.ndarray) -> np.ndarray:
    """The last recorded row of each example, int (examples,): walks may end one by one."""
    return values.shape[1] - 1 - np.argmax(~np.isnan(values)[:, ::-1], axis=1)


def _axis_of(trajectories: Sequence[Trajectory]) -> str:
    """Steps where the walks' median lengths are alike, else fractions."""
    lengths = [max(_length(one), 1.0) for one in trajectories]
    return "step" if max(lengths) <= SAME_LENGTH * min(lengths) else "fraction"


def _length(trajectory: Trajectory) -> float:
    """The median last recorded row."""
    return float(np.median(last_rows(trajectory.column("adversarial"))))


def _drawn(name: str, trajectory: Trajectory, columns: Mapping[str, np.ndarray], axis: str) -> Drawn:
    found = quantities(columns)
    shares = {
        f"{change}_{one}": interval(found[f"{change}_{one}"], np.mean)
        for change in ("climb", "descent")
        for one in SHARES
        if f"{change}_{one}" in found
    }
    flip, length = found["flip_step"], _length(trajectory)
    queries = bool(trajectory.about.get("observed", False))
    flips_most = bool(len(flip)) and float(found["flipped"].mean()) >= 0.5
    if SHARPNESS not in trajectory.measures or not len(flip):
        return Drawn(length, None, None, flips_most, False, shares, queries)
    values = trajectory.column(SHARPNESS)[trajectory.column("adversarial")[:, 0] == 0]
    longest = last_rows(values).max()
    if axis == "fraction":
        flip = flip / np.maximum(last_rows(values), 1)
        places, values = np.linspace(0, 1, GRID), over_fractions(values)
    else:
        kept = (~np.isnan(values)).mean(axis=0) >= STILL_WALKED
        places, values = np.flatnonzero(kept).astype(float), values[:, kept]
    cut = axis == "step" and bool(places[-1] < longest)
    low, median, high = np.nanpercentile(values, [BAND[0], 50, BAND[1]], axis=0)
    curve = Curve(name, SHARPNESS, trajectory.unit(SHARPNESS), places, median, low, high)
    if np.isnan(flip).all():
        return Drawn(length, curve, None, flips_most, cut, shares, queries)
    at = float(np.nanmedian(flip))
    return Drawn(length, curve, (at, float(np.interp(at, places, median))), flips_most, cut, shares, queries)


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


def _notes(runs: Mapping[str, Walked], wanted: Sequence[str]) -> list[str]:
    """What was left out, and where."""
    notes = []
    for name, run in runs.items():
        lacking = _lacking(run.trajectory)
        absent = [one for one in wanted if one not in (*run.trajectory.measures, *lacking)]
        if lacking:
            notes.append(f"{name} has no {', '.join(lacking)}: of its phases only the flips are known.")
        if absent:
            notes.append(f"{name} did not record {', '.join(absent)}.")
        if (restarts := run.trajectory.about.get("restarts", 1)) > 1:
            notes.append(f"{name} has {restarts} restarts: the first is compared.")
    return notes
