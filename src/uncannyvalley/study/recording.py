"""A request or a plan file → its folder: held, resumed, and carried out by an engine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from uncannyvalley.errors import InputError
from uncannyvalley.run.folder import RunFolder, open_run
from uncannyvalley.run.making import held_place, run_folder
from uncannyvalley.run.plan import PLAN_FILE
from uncannyvalley.run.request import Request, control_runs
from uncannyvalley.run.workbench import Workbench
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.places import Place, below, place_of
from uncannyvalley.study.cells import attacks_of, walks_of
from uncannyvalley.study.driver import Outcome, carry_out
from uncannyvalley.study.engines.serial import SerialEngine
from uncannyvalley.study.part import EVERYTHING, Part
from uncannyvalley.study.study_plan import StudyPlan
from uncannyvalley.study.task import ATTACK, Walk
from uncannyvalley.study.worker import Counter, Worker

Progress = Callable[[str, int], Counter]


@contextmanager
def recorded(
    request: Request,
    out: "str | Place",
    *,
    controls: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
    workbench: Workbench | None = None,
) -> Iterator[tuple[RunFolder, Outcome]]:
    """Record the walk of ``request`` into ``out`` and its controls beside it; resumes what is unfinished.

    The folder stays held until the block ends, for what is derived from the run. ``progress(name, total)`` is asked
    for a counter of example-steps for each walk.

    Raises InputError where the folder is another's, or nothing could be recorded because of what was given.
    """
    workbench = workbench or Workbench()
    place = place_of(out)
    walks = walks_of(request, place, workbench, controls=controls)
    plan, work = workbench.make(request)
    works = {ATTACK: work} | {name: beside for name, _, beside in control_runs(plan, work)}
    counters: dict[Place, Counter] = {}

    def opened(walk: Walk, found: int, missing: int) -> None:
        if progress is not None and missing:
            examples = len(work.images) * missing // (found + missing)
            rows = examples * works[walk.name].rows_an_example
            counters[walk.place] = progress(walk.plan.attack.name, rows)

    with held_place(place, overwrite=overwrite):
        engine = SerialEngine(Worker(workbench=workbench, counter=lambda walk: counters.get(walk.place)))
        outcome = carry_out(walks, engine, opened=opened)
        outcome.raise_if_nothing_worked()
        yield open_run(place), outcome


def record_with_controls(
    request: Request, out: "str | Place", *, controls: bool = True, overwrite: bool = False
) -> tuple[RunFolder, Outcome]:
    """``recorded``, where nothing is derived under the same hold."""
    with recorded(request, out, controls=controls, overwrite=overwrite) as (run, outcome):
        return run, outcome


def make_folders(grid: str, walks: Sequence[Walk], out: Place, part: Part = EVERYTHING) -> None:
    """The plan of a study, then every run folder; InputError where another study is there.

    A study may grow: a plan that holds all runs of the one in the folder, and more, takes its place.
    """
    cells = {below(walk.place, out): walk.plan.key for walk in attacks_of(walks)}
    if list(cells) == [""]:  # one cell: the folder is its run folder, as uncanny record writes it
        return
    plan, there = StudyPlan(grid, cells), None
    if (out / PLAN_FILE).exists():
        there = StudyPlan.read(out / PLAN_FILE)
        _check_growth(out, there, plan)
    if there != plan:
        write_bytes(out / PLAN_FILE, plan.to_bytes(), part.writer)
    for walk in walks:
        run_folder(walk.place, walk.plan, part.writer)


def _check_growth(out: Place, there: StudyPlan | None, plan: StudyPlan) -> None:
    if there is None:
        raise InputError(f"{out} holds a single run; choose another folder for the study")
    changed = [place for place, key in there.cells.items() if plan.cells.get(place) != key]
    if changed:
        raise InputError(
            f"{out} holds another study: {len(changed)} of its {len(there.cells)} runs are not in this plan, or differ "
            f"from it (the first: {changed[0]}). Choose another folder, or replace it with --overwrite"
        )
