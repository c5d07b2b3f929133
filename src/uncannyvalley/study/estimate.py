"""What a study will run, and for how long, before it runs: from the first batch of each kind of walk."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from uncannyvalley.adversaries import Adversary
from uncannyvalley.errors import InputError
from uncannyvalley.run.album import WHOLE_WALKS
from uncannyvalley.run.plan import Plan
from uncannyvalley.run.recorder import Work
from uncannyvalley.run.request import Request, control_runs
from uncannyvalley.run.workbench import Workbench
from uncannyvalley.study.first_batch import PATIENCE, Cost, first_batch_cost, recorded_rows
from uncannyvalley.study.plan_file.grid import Cell
from uncannyvalley.study.study_plan import StudyPlan

Make = Callable[[Request], tuple[Plan, Work]]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class WalkEstimate:
    """One walk of a cell: its attack, or a control.

    rows     at most, where the attack stops early; None where only running it can tell
    seconds  of one worker, networks loaded; None where nothing was timed
    bytes    of shards, kept iterates and the head; None where nothing was recorded
    at_least whether the time is a lower bound: a library's first batch was given up
    """

    name: str
    images: int
    shards: int
    rows: int | None
    seconds: float | None = None
    bytes: int | None = None
    at_least: bool = False


@dataclass(frozen=True)
class CellEstimate:
    """One run of a study with its controls; sums over its walks are None where one of them is.

    labels  model, data, attack, measures and seed       place   its folder below the study's
    walks   the attack, then its controls                plan    of the attack: decides the numbers
    device  on which it was timed, as torch names it
    """

    labels: dict[str, str]
    place: str
    walks: tuple[WalkEstimate, ...]
    plan: Plan
    device: str

    @property
    def images(self) -> int:
        """Images of each walk."""
        return self.walks[0].images

    @property
    def shards(self) -> int:
        """Shards of all its walks."""
        return sum(walk.shards for walk in self.walks)

    @property
    def rows(self) -> int | None:
        """Rows of all its walks."""
        return total(walk.rows for walk in self.walks)

    @property
    def seconds(self) -> float | None:
        """Seconds of all its walks, for one worker."""
        return total(walk.seconds for walk in self.walks)

    @property
    def bytes(self) -> int | None:
        """Bytes of all its walks."""
        return total(walk.bytes for walk in self.walks)

    @property
    def at_least(self) -> bool:
        """Whether the time is a lower bound."""
        return any(walk.at_least for walk in self.walks)


def total(numbers: Iterable[Number | None]) -> Number | None:
    """The sum; None where one of them is unknown."""
    known = list(numbers)
    return None if any(one is None for one in known) else sum(known)  # type: ignore[arg-type]


def estimate(
    cells: Sequence[Cell],
    make: Make | None = None,
    *,
    time: bool = True,
    patience: float = PATIENCE,
    say: Callable[[str], None] | None = None,
) -> list[CellEstimate]:
    """What each cell will take, in their order; ``say`` hears what is being timed.

    Walks that differ in nothing but the seed, or in images of the same shape, share one timing. ``patience``: seconds
    after which the first batch of a library's attack is given up. Without ``time`` nothing is recorded: rows of walks
    of ours are exact, and the rest is None.

    Raises InputError for a cell that asks for what it cannot have, with the cell's folder first.
    """
    estimator = _Estimator(make or Workbench().make, time, patience, say or (lambda text: None))
    kinds: dict[Hashable, CellEstimate] = {}
    found = []
    for cell in cells:
        kind = *(label for axis, label in cell.labels.items() if axis != "seed"), cell.controls
        if kind not in kinds:
            kinds[kind] = estimator.of(cell)
        found.append(_of_seed(kinds[kind], cell))
    return found


def _of_seed(found: CellEstimate, cell: Cell) -> CellEstimate:
    """The same for another seed, which decides numbers and costs nothing."""
    recording = found.plan.recording.model_copy(update={"seed": cell.request.seed})
    plan = found.plan.model_copy(update={"recording": recording})
    return CellEstimate(dict(cell.labels), cell.place, found.walks, plan, found.device)


class _Estimator:
    """Estimates cells, and remembers the cost of every kind of walk."""

    def __init__(self, make: Make, time: bool, patience: float, say: Callable[[str], None]) -> None:
        self._make, self._time, self._patience, self._say = make, time, patience, say
        self._costs: dict[Hashable, Cost] = {}

    def of(self, cell: Cell) -> CellEstimate:
        """The attack of a cell and its controls."""
        try:
            plan, work = self._make(cell.request)
            walks = [(plan, work)]
            walks += [(beside, control) for _, beside, control in control_runs(plan, work) if cell.controls]
            estimates = tuple(self._walk(cell, *walk) for walk in walks)
        except InputError as error:
            raise InputError(f"{cell.place}: {error}") from error
        return CellEstimate(dict(cell.labels), cell.place, estimates, plan, str(work.model.device))

    def _walk(self, cell: Cell, plan: Plan, work: Work) -> WalkEstimate:
        name, images, shards = work.attack.name, len(work.images), plan.shard_count
        if not self._time:
            rows = (
                None
                if isinstance(work.attack, Adversary)
                else images * recorded_rows(work.recording, work.attack)
            )
            return WalkEstimate(name, images, shards, rows)
        keep = plan.recording.keep_images
        kind = _kind(cell.request, work, keep)
        if kind not in self._costs:
            self._say(f"{name} of {cell.place}")
            self._costs[kind] = first_batch_cost(work, keep, self._patience)
        cost = self._costs[kind]
        if cost.at_least:
            return WalkEstimate(name, images, shards, None, cost.seconds * images, at_least=True)
        return WalkEstimate(
            name,
            images,
            shards,
            round(cost.rows * images),
            cost.seconds * images,
            round(_bytes(cost, plan, work)),
        )


def _kind(request: Request, work: Work, keep_images: int) -> Hashable:
    """All that a walk's cost hangs on."""
    recording, shape = work.recording, tuple(work.images.pixels.shape[1:])
    network = (
        request.model, sorted(request.model_arguments.items()), request.weights, request.head, request.device, request.dtype,
        request.prepare, request.compile,
    )  # fmt: skip
    recorded = (
        recording.steps, recording.every, recording.restarts, recording.keep, [one.name for one in recording.measures]
    )  # fmt: skip
    batch = min(work.batch_size, len(work.images))
    return repr(
        (network, shape, batch, work.attack.name, sorted(work.settings.items()), recorded, min(keep_images, batch))
    )  # fmt: skip


def _bytes(cost: Cost, plan: Plan, work: Work) -> float:
    size, images = work.batch_size, len(work.images)
    batches = sum(
        -(-(rows.stop - rows.start) // size) for rows in map(plan.shard_rows, range(plan.shard_count))
    )
    tables = (
        images * cost.rows * cost.row_bytes + batches * cost.batch_bytes + plan.shard_count * cost.shard_bytes
    )
    kept = plan.recording.keep_images
    whole = min(kept, WHOLE_WALKS)
    iterates = whole * cost.kept[1] + (kept - whole) * cost.kept[0]
    head = work.model.head.weight.numel() * 4 if work.recording.keep else 0
    return tables + iterates * cost.kept_bytes + head


def part_seconds(estimates: Sequence[CellEstimate], parts: int) -> float | None:
    """Seconds of the longest of ``parts`` parts, each taking every ``parts``-th shard of the study; None if not timed."""
    walks = [walk for one in estimates for walk in one.walks]
    if any(walk.seconds is None for walk in walks):
        return None
    counts = [walk.shards for walk in walks]
    shards = np.repeat([(walk.seconds or 0.0) / walk.shards for walk in walks], counts)
    return float(np.pad(shards, (0, -len(shards) % parts)).reshape(-1, parts).sum(axis=0).max())


def study_key(estimates: Sequence[CellEstimate]) -> str:
    """The content key that the finished folder will have: of the study, or of its one run."""
    if len(estimates) == 1:
        return estimates[0].plan.key
    return StudyPlan("", {one.place: one.plan.key for one in estimates}).key
