"""What recording a walk costs: its first batch, recorded in memory and timed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uncannyvalley.adversaries import Adversary
from uncannyvalley.errors import InputError
from uncannyvalley.recording import record_batch, trajectory_columns
from uncannyvalley.run.album import WHOLE_WALKS, Album
from uncannyvalley.run.named_attack import control_attacks
from uncannyvalley.run.recorder import Work
from uncannyvalley.types import Attack, Probe
from uncannyvalley.walking import MaskingGuard, Recording
from uncannyvalley.watching import watch_batch

FEW_STEPS = 4
"""Steps of a timed walk at least, or all where it has fewer."""

ENOUGH = 0.5
"""Seconds that a timed walk should last: quick ones take more steps."""

MARKED = 3
"""Iterates that are mostly kept of an image: clean, valley, and ridge and flip, which tend to coincide."""

PATIENCE = 120.0
"""Seconds after which the first batch of a library's attack is given up."""


@dataclass(frozen=True)
class Cost:
    """What recording costs, for an image unless said otherwise.

    seconds    of an image     at_least  whether it is only a lower bound: the library was given up
    rows       of its record   row_bytes, batch_bytes, shard_bytes  Parquet: rows × row + batches × batch + shards × shard
    kept       iterates kept of an image, after the first WHOLE_WALKS and for these     kept_bytes  of an iterate
    """

    seconds: float
    at_least: bool = False
    rows: float = 0.0
    row_bytes: float = 0.0
    batch_bytes: float = 0.0
    shard_bytes: float = 0.0
    kept: tuple[float, float] = (0.0, 0.0)
    kept_bytes: float = 0.0


def recorded_rows(recording: Recording, attack: Attack) -> int:
    """Rows that the record of an image holds, over all restarts."""
    last = recording.last_row(attack)
    return recording.restarts * (last // recording.every + 1 + (last % recording.every != 0))


def first_batch_cost(work: Work, keep_images: int, patience: float = PATIENCE) -> Cost:
    """Record the first batch of ``work`` in memory and say what it cost, file writing included.

    A walk of ours is timed at its own batch size for a few steps after a warm-up, and each step that is left out is
    taken to cost what its likes did; one that stops early may cost less. A library's attack is run to its end, since nothing
    in its beginning tells its length: on ResNet-20, 16 of 64 images missed the time of an image by −20 to +40 %.
    """
    kept = min(keep_images, WHOLE_WALKS, work.batch_size)
    if isinstance(work.attack, Adversary):
        return _of_library(work, work.attack, kept, patience)
    return _of_ours(work, work.attack, kept)


def _of_ours(work: Work, attack: Attack, kept: int) -> Cost:
    real = work.recording
    every = min(real.every, 2)
    trial = _Trial(work, attack, replace(real, steps=min(2, real.steps), restarts=1, every=every))
    trial.run(Album([], set(), set()))
    steps = max(FEW_STEPS, int(ENOUGH / max(trial.durations[-1], 1e-6)))
    trial = _Trial(work, attack, replace(real, steps=min(steps, real.steps), restarts=1, every=every))
    whole = set(range(kept))
    album = Album(range(trial.images), whole, whole)
    table = trial.run(album)
    rows = recorded_rows(real, attack)
    cost = _stored(table, rows * trial.images, album, trial.seconds_of(real) * real.restarts, trial.images)
    walk = float(rows / real.restarts)  # images of the first of several restarts are kept
    return replace(cost, kept=(min(walk, float(MARKED)), walk))


class _Trial:
    """The first batch of a walk of ours under ``few``, with the seconds that each of its rows took."""

    def __init__(self, work: Work, attack: Attack, few: Recording) -> None:
        self._work, self._attack, self._few = work, attack, few
        self.images = min(work.batch_size, len(work.images))
        self.durations: list[float] = []
        self._after = 0.0
        self._stopped_early = False

    def run(self, album: Album) -> pa.Table:
        work, part, stamps = self._work, slice(0, self.images), [time.perf_counter()]

        def done(rows: int) -> None:
            self._stopped_early |= rows > self.images  # what nobody walks any more is told at once
            stamps.append(time.perf_counter())

        batch = record_batch(
            work.model, work.images[part], work.images.labels[part], range(self.images), self._attack, self._few,
            target=None if work.target is None else work.target[part],
            schema=trajectory_columns(self._few, work.model, self._attack), masking=MaskingGuard(len(work.images)),
            observer=album, progress=done,
        )  # fmt: skip
        self._after = time.perf_counter() - stamps[-1]
        self.durations = np.diff(stamps).tolist()
        return pa.Table.from_batches([batch])

    def seconds_of(self, real: Recording) -> float:
        """Seconds of one walk under ``real``: the rows before its first step and its last one as they were timed."""
        few, attack = self._few, self._attack
        if self._stopped_early or few.last_row(attack) == real.last_row(attack):
            return sum(self.durations) + self._after
        first = 1 + (attack.start is not None)
        timed: dict[bool, list[float]] = {True: [], False: []}
        for row in range(first, few.last_row(attack)):
            timed[few.keeps(row, attack)].append(self.durations[row])
        between = [real.keeps(row, attack) for row in range(first, real.last_row(attack))]
        steps = sum(between.count(kind) * median(timed[kind]) for kind in (True, False) if kind in between)
        rows = recorded_rows(replace(real, restarts=1), attack) / recorded_rows(few, attack)
        return sum(self.durations[:first]) + steps + self.durations[-1] + rows * self._after


def _of_library(work: Work, adversary: Adversary, kept: int, patience: float) -> Cost:
    warm_up = control_attacks(adversary)[-1]
    _Trial(work, warm_up, replace(work.recording, steps=1)).run(Album([], set(), set()))
    count = min(work.batch_size, len(work.images))
    album = _Patience(count, kept, patience)
    started = time.perf_counter()
    try:
        found = watch_batch(
            work.model, work.images[:count], work.images.labels[:count], range(count), adversary,
            work.recording.measures, work.recording.seed, album,
        )  # fmt: skip
    except (TimeIsUp, InputError):  # libraries' errors come wrapped
        if not album.is_over:
            raise
        return Cost((time.perf_counter() - started) / count, at_least=True)
    seconds = time.perf_counter() - started
    pictures = album.table()
    cost = _stored(found.table, found.table.num_rows, album, seconds, count)
    iterates = 0.0 if pictures is None else pictures.num_rows / kept
    return replace(cost, kept=(iterates, iterates))


class TimeIsUp(Exception):
    """The patience with a library's attack is spent."""


class _Patience(Album):
    """Keeps iterates of ``kept`` images, and ends the attack when ``seconds`` are over."""

    def __init__(self, images: int, kept: int, seconds: float) -> None:
        super().__init__(range(images), set(range(kept)), set())
        self._ends = time.perf_counter() + seconds
        self.is_over = False

    def see_rows(
        self, ids: np.ndarray, steps: np.ndarray, probe: Probe, values: Mapping[str, np.ndarray]
    ) -> None:
        """Take what these rows mark; TimeIsUp where the time is over."""
        self.is_over = time.perf_counter() > self._ends
        if self.is_over:
            raise TimeIsUp
        super().see_rows(ids, steps, probe, values)


def _stored(table: pa.Table, rows: int, album: Album, seconds: float, images: int) -> Cost:
    """Sizes of what was recorded, written as shards are, where a batch of it has ``rows`` rows.

    A shard is linear in its batches and their rows: three files tell what each costs.
    """
    started = time.perf_counter()
    once = _parquet_bytes([table])
    writing = (time.perf_counter() - started) * rows / table.num_rows
    batch = _parquet_bytes([table, table]) - once
    half = table.slice(0, table.num_rows // 2)
    row = (once - _parquet_bytes([half])) / (table.num_rows - half.num_rows)
    pictures = album.table()
    return Cost(
        seconds=(seconds + writing) / images,
        rows=rows / images,
        row_bytes=row,
        batch_bytes=batch - row * table.num_rows,
        shard_bytes=float(once - batch),
        kept_bytes=0.0 if pictures is None else _parquet_bytes([pictures]) / pictures.num_rows,
    )


def _parquet_bytes(tables: list[pa.Table]) -> int:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, tables[0].schema, compression="zstd", write_page_checksum=True) as file:
        for table in tables:
            file.write_table(table)
    return sink.getvalue().size
