"""The walks of a study → tasks for an engine → shards, listed in their manifests."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from uncannyvalley.errors import InputError
from uncannyvalley.run.folder import RunFolder
from uncannyvalley.run.ledger import Ledger
from uncannyvalley.run.making import run_folder
from uncannyvalley.storing.files import CannotWrite
from uncannyvalley.storing.manifest import BLOCK
from uncannyvalley.study.part import EVERYTHING, Part
from uncannyvalley.study.task import Engine, Report, Task, Walk


@dataclass
class Outcome:
    """What a call did: shards recorded, found finished, failed; and what it has to say besides."""

    recorded: int = 0
    found: int = 0
    failed: list[Report] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def raise_if_nothing_worked(self) -> None:
        """InputError with the first failure where no shard is there, so that there is nothing to go on from."""
        if self.failed and not self.recorded and not self.found:
            raise InputError((self.failed[0].failure or {})["error"])


def carry_out(
    walks: Iterable[Walk],
    engine: Engine,
    *,
    part: Part = EVERYTHING,
    opened: Callable[[Walk, int, int], None] | None = None,
    done: Callable[[Report], None] | None = None,
) -> Outcome:
    """Record every shard of ``walks`` that is not there yet, and keep the manifests.

    Memory does not grow with the shards: walks are opened one after the other as the engine asks for tasks, and
    closed when their last report is in. ``opened`` hears of each with its shards found and to do, ``done`` of each report.

    Raises CannotWrite where the disk takes no more; every other failure of a shard is in the outcome.
    """
    return _Driver(engine, part, opened, done).run(walks)


class _Driver:
    def __init__(
        self,
        engine: Engine,
        part: Part,
        opened: Callable[[Walk, int, int], None] | None,
        done: Callable[[Report], None] | None,
    ) -> None:
        self._engine, self._part, self._opened, self._done = engine, part, opened, done
        self._outcome = Outcome()
        self._open: dict[str, dict[int, _Pending]] = {}  # run → block → what is under way

    def run(self, walks: Iterable[Walk]) -> Outcome:
        try:
            for report in self._engine.map(self._tasks(walks)):
                self._take(report)
        finally:
            for blocks in self._open.values():
                for pending in blocks.values():
                    pending.ledger.write()
        return self._outcome

    def _tasks(self, walks: Iterable[Walk]) -> Iterator[Task]:
        before = 0  # shards of earlier walks
        for walk in walks:
            run = run_folder(walk.place, walk.plan, self._part.writer)
            here = replace(walk, plan=run.plan)  # a folder keeps the shard size that it was begun with
            for block in range(run.blocks):
                yield from self._tasks_of(here, run, block, before)
            before += run.plan.shard_count

    def _tasks_of(self, walk: Walk, run: RunFolder, block: int, before: int) -> Iterator[Task]:
        ledger = Ledger(run, block)
        if block == 0:
            ledger.name_controls(walk.controls)
        self._outcome.notices += ledger.notices
        mine = [number for number in run.numbers(block) if self._part.has(before + number)]
        missing = ledger.unfinished(mine)
        self._outcome.found += len(mine) - len(missing)
        if self._opened is not None:
            self._opened(walk, len(mine) - len(missing), len(missing))
        if not missing:
            ledger.write()
            return
        place = str(walk.place)
        self._open.setdefault(place, {})[block] = _Pending(ledger, len(missing))
        for number in missing:
            yield Task(walk, number, self._part.writer)

    def _take(self, report: Report) -> None:
        blocks, block = self._open[report.place], report.shard // BLOCK
        pending = blocks[block]
        pending.shards -= 1
        if report.entry is not None:
            self._outcome.recorded += 1
            pending.ledger.add(report.shard, report.entry, report.provenance)
        elif report.stops:
            raise CannotWrite((report.failure or {})["error"])
        else:
            self._outcome.failed.append(report)
            pending.ledger.fail(report.shard, report.failure or {})
        if self._done is not None:
            self._done(report)
        if not pending.shards:
            pending.ledger.write()
            del blocks[block]
            if not blocks:
                del self._open[report.place]


@dataclass
class _Pending:
    """A block under way, and how many of its reports are still to come."""

    ledger: Ledger
    shards: int
