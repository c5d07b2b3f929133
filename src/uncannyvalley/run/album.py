"""Images kept from a walk: clean, ridge, flip and valley iterates of some examples, all steps of a few."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from uncannyvalley.measures.second import log_relative_sharpness
from uncannyvalley.types import Probe

WHOLE_WALKS = 8
"""Examples of which every recorded step is kept."""

ROLES = ("clean", "ridge", "flip", "valley")


class Album:
    """Watches one batch and holds the iterates that mark its phases, for the examples in ``wanted``.

    wanted  ids to keep images of       whole  ids to keep every step of
    """

    def __init__(self, ids: Sequence[int], wanted: set[int], whole: set[int]) -> None:
        self._ids = np.asarray(ids, dtype=np.int64)
        self._wanted = wanted & set(self._ids.tolist())
        self._whole = whole
        self._images: dict[tuple[int, int], np.ndarray] = {}  # (id, step) → pixels
        self._roles: dict[int, dict[str, int]] = {one: {} for one in self._wanted}
        self._highest: dict[int, float] = {}
        self._clean: dict[int, float] = {}

    def see(self, restart: int, row: int, probe: Probe, values: Mapping[str, np.ndarray]) -> None:
        """Take what this step marks; only the first of several restarts is kept."""
        if restart == 0 and self._wanted:
            self.see_rows(self._ids, np.full(len(self._ids), row), probe, values)

    def see_rows(
        self, ids: np.ndarray, steps: np.ndarray, probe: Probe, values: Mapping[str, np.ndarray]
    ) -> None:
        """Take what these rows mark, each a step of an example; rows that are not recorded hold NaN."""
        rows = np.flatnonzero(np.isin(ids, list(self._wanted)))
        if not len(rows):
            return
        sharpness = values.get("log_relative_sharpness")
        if sharpness is None:
            sharpness = log_relative_sharpness(probe).cpu().numpy()
        if probe.recorded is not None:  # rows of walks that have stopped
            sharpness = np.where(probe.recorded.cpu().numpy(), sharpness, np.nan)
        wrong = (probe.predicted != probe.y).cpu().numpy()
        for batch_row in rows[~np.isnan(sharpness[rows])].tolist():
            one, step = int(ids[batch_row]), int(steps[batch_row])
            marks = self._marks(one, step, float(sharpness[batch_row]), bool(wrong[batch_row]))
            self._roles[one] |= dict.fromkeys(marks, step)
            if marks or one in self._whole:
                self._images[one, step] = probe.x[batch_row].float().cpu().numpy().copy()
            if one not in self._whole:
                self._forget(one)

    def _marks(self, one: int, row: int, sharpness: float, wrong: bool) -> list[str]:
        """Roles that this step takes; the ridge moves on while the walk climbs."""
        roles = self._roles[one]
        marks = []
        if row == 0:
            self._clean[one] = sharpness
            marks.append("clean")
        if sharpness > self._highest.get(one, -np.inf) or row == 0:
            self._highest[one] = sharpness
            marks.append("ridge")
        if wrong and "flip" not in roles:
            marks.append("flip")
        if ("flip" in roles or wrong) and sharpness < self._clean[one] and "valley" not in roles:
            marks.append("valley")
        return marks

    def _forget(self, one: int) -> None:
        """Drop iterates whose role moved on."""
        marked = set(self._roles[one].values())
        for key in [key for key in self._images if key[0] == one and key[1] not in marked]:
            del self._images[key]

    def table(self) -> pa.Table | None:
        """One row a kept iterate: example, step, its roles, and its pixels as float32 (shape in the metadata)."""
        if not self._images:
            return None
        keys = sorted(self._images)
        roles = [[role for role in ROLES if self._roles[one].get(role) == step] for one, step in keys]
        shape = self._images[keys[0]].shape
        flat = np.concatenate([self._images[key].reshape(-1) for key in keys])
        columns = {
            "example": pa.array([one for one, _ in keys], pa.int64()),
            "step": pa.array([step for _, step in keys], pa.int32()),
            "roles": pa.array(roles, pa.list_(pa.string())),
            "pixels": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), int(np.prod(shape))),
        }
        return pa.table(columns).replace_schema_metadata({"shape": ",".join(map(str, shape))})
