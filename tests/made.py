"""Trajectories made by hand, whose phases are known."""

import math

import pyarrow as pa

from uncannyvalley.trajectory import Trajectory, trajectory_schema


def made(sharpness: list[list[float]], wrong: list[list[bool]], attack: str = "pgd") -> Trajectory:
    """A trajectory with given log κ, all of it Gini; NaN rows are left out of the table."""
    names = ("log_relative_sharpness", "log_gini", "feature_norm", "log_geometry", "loss")
    rows = len(sharpness[0])
    about = {"attack": attack, "rows": rows, "restarts": 1, "log_geometry_band": [0.0, 0.5]}
    schema = trajectory_schema(dict.fromkeys(names, ("nats", 1)), about)
    records = [
        {
            "run": "made", "example": example, "restart": 0, "step": step, "label": 0,
            "predicted": int(wrong[example][step]), "adversarial": wrong[example][step],
            "log_relative_sharpness": value, "log_gini": value, "feature_norm": 1.0, "log_geometry": 0.0, "loss": 1.0,
        }
        for example, values in enumerate(sharpness)
        for step, value in enumerate(values)
        if not math.isnan(value)
    ]  # fmt: skip
    return Trajectory(pa.Table.from_pylist(records, schema=schema))
