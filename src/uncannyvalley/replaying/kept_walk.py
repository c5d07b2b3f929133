"""What a walk kept: its rows a few at a time, and the head that they were recorded with.

A row of 1000 kept logits is forty times as long as its measures, so shards are read one after the other and what was kept is
let go before the next one comes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from uncannyvalley.errors import InputError
from uncannyvalley.head import Head
from uncannyvalley.measures.registry import MAX_BLOCK_ELEMENTS
from uncannyvalley.run.folder import RunFolder, open_run
from uncannyvalley.splitting import SplitModel
from uncannyvalley.storing.parquet import intact_bytes, read_table
from uncannyvalley.storing.places import Place
from uncannyvalley.trajectory import Trajectory

LOGITS, FEATURES = "logits", "features"
KEPT = (LOGITS, FEATURES)
"""Columns that recording with ``keep`` adds."""

NORM = "feature_norm"
"""The measure that is always recorded beside them."""

RECORD_AGAIN = "record it again with --keep {what} (in Python: record(…, keep='{what}'))"


@dataclass(frozen=True)
class KeptWalk:
    """A walk that can be replayed.

    source  a run folder, read shard by shard, or a trajectory
    head    the head it was recorded with, None where a trajectory came without one
    name    how messages speak of it
    """

    source: RunFolder | Trajectory
    head: Head | None
    name: str

    def tables(self) -> Iterator[pa.Table]:
        """All rows, one shard at a time; InputError where one was changed on the disk, or none is there."""
        if isinstance(self.source, Trajectory):
            yield self.source.table
            return
        places = self.source.finished_shards()
        if not places:
            raise InputError(
                f"{self.name} holds no finished shard yet; the command that began it goes on with it"
            )
        for place in places:
            yield read_table(intact_bytes(place), place)

    def blocks(self) -> Iterator[pa.Table]:
        """All rows, so few at a time that a float64 table of their logits or features takes 32 MB."""
        for table in self.tables():
            widest = max(
                table.schema.field(name).type.list_size for name in KEPT if name in table.column_names
            )
            size = max(1, MAX_BLOCK_ELEMENTS // widest)
            for first in range(0, table.num_rows, size):
                yield table.slice(first, size)

    def recorded(self) -> Trajectory:
        """The walk as it was recorded, without what was kept for replays."""
        if isinstance(self.source, Trajectory):
            return Trajectory(without_kept(self.source.table), self.source.ids)
        tables = [without_kept(table) for table in self.tables()]
        return Trajectory(pa.concat_tables(tables).unify_dictionaries())

    def recorded_head(self, purpose: str) -> Head:
        """The head of the recording; InputError, naming what it is needed for, where nobody gave it."""
        if self.head is None:
            raise InputError(
                f"{purpose} needs the head that the walk was recorded with; pass recorded_head= (a Head, or what split() "
                "returned), or replay the run folder, which keeps it"
            )
        return self.head

    def check_features(self, purpose: str) -> None:
        """Raise InputError unless features were kept."""
        if self.about.get("keep") != FEATURES:
            raise InputError(
                f"{purpose} needs the features of each step, but {self.name} kept its logits alone, which another head "
                f"cannot be applied to; {RECORD_AGAIN.format(what=FEATURES)}. A temperature needs logits only"
            )

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the rows."""
        return next(self.tables()).schema

    @property
    def about(self) -> dict[str, Any]:
        """What decided the walk, as its recording said."""
        return Trajectory(self.schema.empty_table()).about

    @property
    def width(self) -> int:
        """Dimensions of its kept features."""
        return self.schema.field(FEATURES).type.list_size

    def clean_features(self) -> tuple[np.ndarray, np.ndarray]:
        """Features of the clean points, float64 (n, d), and their labels, int64 (n,)."""
        features, labels = [], []
        for block in self.blocks():
            first = (block["step"].to_numpy() == 0) & (block["restart"].to_numpy() == 0)
            features.append(kept_column(block, FEATURES)[first].astype(np.float64))
            labels.append(block["label"].to_numpy()[first].astype(np.int64))
        return np.concatenate(features), np.concatenate(labels)


def kept_walk(
    walk: "RunFolder | Trajectory | str | Place", recorded_head: "Head | SplitModel | None" = None
) -> KeptWalk:
    """``walk`` as something that can be replayed: a run folder or its path, or a trajectory recorded with ``keep``.

    ``recorded_head`` is the head of a trajectory's network; a run folder has its own. Raises InputError where nothing was kept.
    """
    if isinstance(walk, Trajectory):
        head = recorded_head.head if isinstance(recorded_head, SplitModel) else recorded_head
        _check_kept(walk, head)
        return KeptWalk(walk, head, "this trajectory")
    if not isinstance(walk, (RunFolder, str, Place)):
        raise InputError(f"a replay is of a run folder, its path, or a Trajectory; got {type(walk).__name__}")
    walk = walk if isinstance(walk, RunFolder) else open_run(walk)
    if recorded_head is not None:
        raise InputError("recorded_head is for trajectories: a run folder keeps its own head. Leave it out")
    name = str(walk.path)
    if walk.plan.prompts is not None:
        raise InputError(
            f"{name} is a run of prompts, which keeps no logits; replays are for walks of images"
        )
    if "library" in walk.plan.attack.settings:
        raise InputError(
            f"{name} holds the queries of {walk.plan.attack.name}, of which no logits are kept; replay a walk of an attack of "
            "our own (uncanny list attacks)"
        )
    if walk.plan.recording.keep not in KEPT:
        raise _nothing_kept(name)
    return KeptWalk(walk, walk.head(), name)


def _check_kept(walk: Trajectory, head: Head | None) -> None:
    """Raise InputError unless a trajectory kept logits, and they can be those of ``head``."""
    if "replayed" in walk.about:
        raise InputError(
            "this trajectory is a replay itself, and holds no logits; replay the recorded one again"
        )
    if LOGITS not in walk.table.column_names or NORM not in walk.measures:
        raise _nothing_kept("this trajectory")
    classes = walk.table.schema.field(LOGITS).type.list_size
    if head is not None and head.classes != classes:
        raise InputError(
            f"recorded_head has {head.classes} classes, the kept logits {classes}; give the head of the recording"
        )


def _nothing_kept(name: str) -> InputError:
    return InputError(
        f"{name} kept no logits, so there is nothing to replay; {RECORD_AGAIN.format(what=LOGITS)}"
    )


def without_kept(table: pa.Table) -> pa.Table:
    """The same rows without logits and features."""
    return table.drop_columns([name for name in KEPT if name in table.column_names])


def kept_column(table: pa.Table, name: str) -> np.ndarray:
    """A kept column of some rows as float32 (rows, width)."""
    # to_numpy of a whole column would make an object of each row; a slice's own values begin at its offset
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table[name].chunks]
    width = table.schema.field(name).type.list_size
    flat = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
    return flat.reshape(-1, width)
