"""One run as the page carries it: its curves, and every recorded value of every example."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uncannyvalley.analysis.phase_table import Phases
from uncannyvalley.analysis.words import WORDS
from uncannyvalley.report.page_numbers.curve_numbers import mark_numbers, share_numbers, walk_curves
from uncannyvalley.report.page_numbers.packing import Packed, pack
from uncannyvalley.report.pages.run_curves import RunCurves
from uncannyvalley.trajectory import Trajectory

MOST_VALUES = 420_000
"""Values of a measure: every row of 10 000 examples in 41 rows. Of longer walks, such as many queries, every n-th row is carried."""

PARTS = {
    "log_gini": "log Gini, uncertainty of the prediction",
    "feature_norm": "|φ|, norm of the features",
    "log_geometry": "log geometry of the head's rows",
}
"""What log κ is made of: measure → what it is called."""

DISTANCES = {
    "distance_linf": "distance moved, Linf", "distance_l2": "distance moved, L2", "distance_tokens": "tokens changed",
}  # fmt: skip

MARKED_STEPS = {"flip": "flip_step", "ridge": "ridge_step", "valley": "valley_step"}

NO_STEP = -1


def run_numbers(found: Phases, drawn: RunCurves, *, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """A run's part of the payload, without id, title, pictures and replay.

    Values are float32, NaN where nothing was recorded; steps of phases are −1 where a walk has none. Of attacks that see no
    gradient, curves are of what they accepted and values of all that they tried.
    """
    trajectory = found.trajectory
    carried = carried_measures(trajectory, drawn)
    steps, left_out = carried_steps(found)
    return {
        "axis": drawn.axis,
        "subject": trajectory.subject,
        "observed": trajectory.is_observed,
        "start": WORDS[trajectory.subject].start,
        "class_names": list(class_names),
        "measures": {
            name: {"title": title, "unit": trajectory.unit(measure)}
            for name, (measure, title) in carried.items()
        },
        "walks": [
            walk_curves("attack" if name == drawn.attack else "control", name, curves)
            for name, curves in drawn.of_walk.items()
        ],
        "shares": share_numbers(drawn.shares),
        "marks": mark_numbers(found.own_summary),
        "steps": steps.tolist(),
        "steps_left_out": left_out,
        "count": len(found),
        "per_example": _per_example(found),
        "values": _values(found, steps, {name: measure for name, (measure, _) in carried.items()}),
    }


def asked_rows(found: Phases) -> np.ndarray:
    """Which examples of the trajectory the phases speak of: a watched attack may leave images out."""
    return np.isin(found.trajectory.examples, found.column("example"))


def carried_steps(found: Phases) -> tuple[np.ndarray, int]:
    """The rows of the walk that the page carries, and how many recorded ones it leaves out."""
    sharpness = found.trajectory.column("log_relative_sharpness", found.restart)
    recorded = np.flatnonzero(~np.isnan(sharpness).all(axis=0))
    stride = max(1, -(-len(recorded) * max(1, len(found)) // MOST_VALUES))
    kept = recorded[::stride]
    if len(recorded) and kept[-1] != recorded[-1]:
        kept = np.append(kept, recorded[-1])
    return kept, len(recorded) - len(kept)


def _per_example(found: Phases) -> dict[str, Packed]:
    steps = {name: found.column(column) for name, column in MARKED_STEPS.items()}
    return {
        "id": pack(found.column("example").astype(np.int32)),
        "label": pack(found.column("label").astype(np.int32)),
        "correct": pack((found.column("flip_step") != 0).astype(np.uint8)),
        **{name: pack(np.where(np.isnan(one), NO_STEP, one).astype(np.int32)) for name, one in steps.items()},
        "height": pack(found.column("ridge_height").astype(np.float32)),
        "depth": pack(found.column("depth").astype(np.float32)),
    }


def carried_measures(trajectory: Trajectory, drawn: RunCurves) -> dict[str, tuple[str, str]]:
    """What every example's values are carried of, by the name that it has on the page: the recorded measure, and its title.

    What is drawn, the parts of log κ, and the distance in the attack's own norm.
    """
    carried = {name: (drawn.sources[name], title) for name, title in drawn.titles.items()}
    carried |= {name: (name, title) for name, title in PARTS.items()}
    norm = trajectory.about.get("settings", {}).get("norm", "linf")
    distance = "distance_tokens" if trajectory.subject == "prompt" else f"distance_{norm}"
    if distance in trajectory.measures:
        carried["distance"] = (distance, DISTANCES.get(distance, distance))
    return carried


def _values(found: Phases, steps: np.ndarray, carried: Mapping[str, str]) -> dict[str, Packed]:
    """The carried measures by their names on the page, and for images the predicted class."""
    trajectory, rows = found.trajectory, np.flatnonzero(asked_rows(found))

    def column(measure: str) -> np.ndarray:
        return trajectory.column(measure, found.restart)[np.ix_(rows, steps)]

    with np.errstate(over="ignore"):  # beyond 3e38 is infinite
        packed = {name: pack(column(measure).astype(np.float32)) for name, measure in carried.items()}
    if trajectory.subject == "image":
        predicted = column("predicted")
        packed["predicted"] = pack(np.where(np.isnan(predicted), NO_STEP, predicted).astype(np.int16))
    return packed
