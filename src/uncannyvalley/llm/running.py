"""A request → its run folder: each walk a shard, saved step by step, then what the model answers."""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.compute as pc
import torch

from uncannyvalley.llm.completions import Completion, completions_of, read_completions, write_completions
from uncannyvalley.llm.journal import Journal
from uncannyvalley.llm.judging import judge_completions, load_judge
from uncannyvalley.llm.prompting.prompts import Prompts
from uncannyvalley.llm.request import SuffixRequest, SuffixWork, make_suffix_work
from uncannyvalley.llm.searching.space import SuffixSpace
from uncannyvalley.llm.walking import record_walk
from uncannyvalley.run.folder import RunFolder, open_run
from uncannyvalley.run.ledger import list_derived
from uncannyvalley.run.making import held_place
from uncannyvalley.run.plan import Plan, shard_name
from uncannyvalley.storing.files import CannotWrite
from uncannyvalley.storing.parquet import write_parquet
from uncannyvalley.storing.places import Place, place_of
from uncannyvalley.study.driver import Outcome, carry_out
from uncannyvalley.study.engines.serial import SerialEngine
from uncannyvalley.study.recording import Progress
from uncannyvalley.study.task import ATTACK, Report, Task, Walk
from uncannyvalley.study.worker import failure_of

DERIVED = ("completions.json", "test_cases.json")

Counter = Callable[[int], None]


@contextmanager
def recorded_prompts(
    request: SuffixRequest,
    out: "str | Place",
    *,
    controls: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[RunFolder, Outcome]]:
    """Record the walks of ``request`` into ``out`` and its controls beside it; goes on after a kill at any step.

    The folder stays held until the block ends, for what is derived from the run. ``progress(name, total)`` is asked for
    a counter of steps for each attack. What the model answers to the best suffixes is written beside the shards.

    Raises InputError where the folder is another's, or nothing could be recorded because of what was given.
    """
    judge = None if request.judge is None else load_judge(request.judge)
    prompts, works = make_suffix_work(request, controls=controls)
    place = place_of(out)
    attack, *beside = works
    walks = [
        Walk(place, ATTACK, works[attack][0], request, tuple(beside)),
        *(Walk(place / "controls" / name, name, works[name][0], request) for name in beside),
    ]
    counters: dict[Place, Counter] = {}

    def opened(walk: Walk, found: int, missing: int) -> None:
        if progress is not None and missing:
            work = works[walk.plan.attack.name][1]
            counters[walk.place] = progress(walk.plan.attack.name, missing * work.steps_a_walk)

    with held_place(place, overwrite=overwrite):
        worker = _Worker(works, counters, prompts.notes)
        outcome = carry_out(walks, SerialEngine(worker), opened=opened)
        outcome.raise_if_nothing_worked()
        run = open_run(place)
        outcome.notices += run.notes
        if run.is_begun and not outcome.failed:
            found = _completions(run, prompts, works[attack][1], is_new=outcome.recorded > 0)
            _write_derived(run, found if judge is None else judge_completions(judge, found, request.judge))
        yield run, outcome


class _Worker:
    """Records walks one after the other."""

    def __init__(
        self,
        works: dict[str, tuple[Plan, SuffixWork]],
        counters: dict[Place, Counter],
        notes: tuple[str, ...],
    ) -> None:
        self._works, self._counters, self._notes = works, counters, notes

    def __call__(self, task: Task) -> Report:
        """The shard, recorded; a failure is reported, and never raised."""
        work = self._works[task.walk.plan.attack.name][1]
        place = str(task.walk.place)
        try:
            return Report(place, task.shard, self._record(task, work), _provenance(work))
        except Exception as error:
            return Report(
                place, task.shard, failure=failure_of(error, 1), stops=isinstance(error, CannotWrite)
            )

    def _record(self, task: Task, work: SuffixWork) -> dict[str, Any]:
        started = time.perf_counter()
        run, name = RunFolder(task.walk.place, task.walk.plan, task.writer), shard_name(task.shard)
        rows = run.plan.shard_rows(task.shard)
        ids = range(rows.start, rows.stop)
        own = work.subjects.only(ids)
        space = SuffixSpace.of(own.models[0], own.layouts[0], work.attack.settings, work.allowed)
        journal = Journal(run.path, name, run.plan.key)
        table = record_walk(
            own, ids, space, work.attack, work.recording, work.schema, run=run.plan.key[:12], batch_size=work.batch_size,
            saved=journal.read(), save=journal.save, progress=self._counters.get(run.path),
        )  # fmt: skip
        more = {"notes": [note for note in (*self._notes, space.note) if note]}
        facts = more | {"key": run.plan.key, "shard": name}
        digest = write_parquet(run.shard(task.shard), table.schema, [table], lambda: facts, run.writer)
        journal.remove()
        seconds = round(time.perf_counter() - started, 3)
        return {"rows": table.num_rows, "sha256": digest, "seconds": seconds, **more}


def _provenance(work: SuffixWork) -> dict[str, Any]:
    """What does not decide the numbers (beyond float error), but explains them."""
    import transformers

    model = work.subjects.models[0]
    return {
        "batch_size": work.batch_size or "by tokens",
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "preparation": [note for one in work.subjects.models for note in one.notes],
        "engine": "serial",
    }


def _completions(run: RunFolder, prompts: Prompts, work: SuffixWork, *, is_new: bool) -> list[Completion]:
    """What the first model answers to the suffix of the lowest loss of each prompt; none for soft prompts, which no one
    can type. Kept answers are taken as they are."""
    place = run.path / DERIVED[0]
    if not is_new and place.exists():
        return read_completions(place, prompts.items)
    best = best_suffixes(run, universal=run.plan.prompts is not None and run.plan.prompts.universal)
    chosen = [number for number in range(len(prompts.items)) if best.get(number)]
    if not chosen or run.plan.prompts is None:
        return []
    own = work.subjects.only(chosen)
    suffixes = [torch.tensor(best[number]) for number in chosen]
    return completions_of(own.models[0], own.prompts, own.layouts[0], suffixes, run.plan.prompts.new_tokens)


def best_suffixes(run: RunFolder, *, universal: bool) -> dict[int, list[int]]:
    """Prompt → ids of its recorded suffix of the lowest target loss, the mean over prompts where they share one; the
    first of equals. GCG moves to the best of each batch even where it is worse than before, so the last is not the best."""
    table = run.trajectory.table
    table = table.filter(pc.and_(pc.equal(table["token"], 0), pc.equal(table["model"], 0)))
    examples, losses = table["example"].to_pylist(), table["target_loss"].to_pylist()
    at = list(zip(table["restart"].to_pylist(), table["step"].to_pylist(), strict=True))
    total: dict[tuple[int, ...], float] = {}
    for example, moment, loss in zip(examples, at, losses, strict=True):
        key = moment if universal else (example, *moment)
        total[key] = total.get(key, 0.0) + loss
    lowest: dict[int, tuple[float, int]] = {}
    for row, (example, moment) in enumerate(zip(examples, at, strict=True)):
        loss = total[moment if universal else (example, *moment)]
        if example not in lowest or loss < lowest[example][0]:
            lowest[example] = loss, row
    return {example: table["suffix_ids"][row].as_py() for example, (_, row) in lowest.items()}


def _write_derived(run: RunFolder, completions: list[Completion]) -> None:
    if not completions:
        return
    write_completions(run.path, completions)
    digests = {name: hashlib.sha256((run.path / name).read_bytes()).hexdigest() for name in DERIVED}
    list_derived(run, digests)
