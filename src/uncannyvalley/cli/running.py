"""``uncanny run``: every run of a plan file, here, on a cluster, or one part of it."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_json, progress_bars
from uncannyvalley.cli.recorder import phases_missing, say_failures
from uncannyvalley.errors import InputError, unknown_name

if TYPE_CHECKING:
    from uncannyvalley.run.workbench import Workbench
    from uncannyvalley.storing.places import Place
    from uncannyvalley.study.driver import Outcome
    from uncannyvalley.study.part import Part
    from uncannyvalley.study.plan_file.grid import Cell
    from uncannyvalley.study.task import Engine, Report, Walk

ENGINES = ("serial", "ray")

MOST_PAGES = 24
"""Up to so many runs, each gets its figure and page without being asked for."""


def run(
    plan: Annotated[Path, typer.Argument(help="The plan file (see: uncanny plan).", show_default=False)],
    out: Annotated[
        str,
        typer.Option(
            help="Folder of the study, or URL (s3://bucket/study); the same command resumes it.",
            show_default=False,
        ),
    ],
    engine: Annotated[str, typer.Option(help="serial: in this process; ray: on a Ray cluster.")] = "serial",
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster, such as auto; one of its own if left out.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray workers; as many as the cluster has room for if left out.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(help="GPUs of a Ray worker; may be a fraction, such as 0.25.")
    ] = None,
    part: Annotated[
        str, typer.Option(help="K/N: only this part, for job arrays; parts need nothing of each other.")
    ] = "1/1",
    retries: Annotated[int, typer.Option(help="Further attempts at a shard that fails.")] = 1,
    batch_size: options.BatchSize = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, …; the plan's if left out.")
    ] = None,
    pages: Annotated[
        bool | None,
        typer.Option(
            "--pages/--no-pages",
            help=f"Figure and page in each run's folder; by default up to {MOST_PAGES} runs.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another study in the folder.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Run every cell of a plan file; goes on where it stopped, with any engine, worker count or part."""
    from uncannyvalley.checks import check_count
    from uncannyvalley.run.making import held_place
    from uncannyvalley.run.workbench import Workbench
    from uncannyvalley.storing.places import place_of
    from uncannyvalley.study.part import Part
    from uncannyvalley.study.plan_file.grid import read_grid
    from uncannyvalley.study.recording import make_folders

    share, place, bench = Part.read(part), place_of(out), Workbench()
    check_count("--retries", retries, 0)
    if overwrite and share.count > 1:
        raise InputError("--overwrite does not go with --part: it would delete what other parts have done")
    if engine == "ray" and isinstance(place, Path):
        place = place.absolute()  # workers may not be where this process is
    grid = read_grid(plan)
    cells = [cell.asking(batch_size=batch_size, device=device) for cell in grid.cells()]
    walks = _walks(cells, place, bench, quiet=json)
    worker = _engine(engine, bench, retries, address=address, workers=workers, gpus=gpus)
    with ExitStack() as hold:
        hold.enter_context(held_place(place, overwrite=overwrite, writer=share.writer))
        make_folders(grid.to_toml(), walks, place, share)
        outcome = _carry_out(walks, worker, share, quiet=json)
        outcome.raise_if_nothing_worked()
        if share.count == 1:
            _draw(walks, pages, json)
        _say(walks, place, outcome, share, json)
    say_failures(outcome)


def _walks(cells: Sequence["Cell"], place: "Place", bench: "Workbench", quiet: bool) -> list["Walk"]:
    """The walks of all cells, checked before anything runs: each network and data set is loaded once."""
    from uncannyvalley.study.cells import walks_of

    found: list[Walk] = []
    with progress_bars(quiet, "runs") as progress:
        count = progress("checking", len(cells)) if progress else None
        for cell in cells:
            # one cell: the folder is its run folder, as uncanny record writes it
            own = place if len(cells) == 1 else place / cell.place
            try:
                found += walks_of(cell.request, own, bench, controls=cell.controls)
            except InputError as error:
                raise InputError(f"{cell.place}: {error}") from error
            if count:
                count(1)
    return found


def _engine(
    name: str,
    bench: "Workbench",
    retries: int,
    *,
    address: str | None,
    workers: int | None,
    gpus: float | None,
) -> "Engine":
    from functools import partial

    from uncannyvalley.study.engines.serial import SerialEngine
    from uncannyvalley.study.task import lost
    from uncannyvalley.study.worker import Worker

    if name == "serial":
        asked = {"--address": address, "--workers": workers, "--gpus": gpus}
        for option, value in asked.items():
            if value is not None:
                raise InputError(f"{option} goes with --engine ray; the serial engine works in this process")
        return SerialEngine(Worker("serial", retries, bench))
    if name == "ray":
        from uncannyvalley.study.engines.ray_engine import RayEngine

        make = partial(Worker, "ray", retries)
        return RayEngine(make, lost, workers=workers, address=address, gpus=gpus)
    raise unknown_name("engine", name, ENGINES)


def _carry_out(walks: list["Walk"], engine: "Engine", share: "Part", quiet: bool) -> "Outcome":
    """With a bar over all shards of the part."""
    from uncannyvalley.study.cells import shard_total
    from uncannyvalley.study.driver import carry_out

    total = shard_total(walks)
    mine = len(range(share.number - 1, total, share.count))
    with progress_bars(quiet, "shards") as progress:
        count = progress("shards", mine) if progress else (lambda done: None)

        def opened(walk: "Walk", found: int, missing: int) -> None:
            count(found)

        def done(report: "Report") -> None:
            count(1)

        return carry_out(walks, engine, part=share, opened=opened, done=done)


def _draw(walks: list["Walk"], pages: bool | None, quiet: bool) -> None:
    """Phases, figure and page of every complete run that does not have them yet."""
    from uncannyvalley.report.pages.report_page import phases_of
    from uncannyvalley.report.pages.run_report import write_report, written_report
    from uncannyvalley.run.folder import open_run
    from uncannyvalley.study.cells import attacks_of

    attacks = list(attacks_of(walks))
    if not (len(attacks) <= MOST_PAGES if pages is None else pages):
        return
    with progress_bars(quiet, "pages") as progress:
        count = progress("pages", len(attacks)) if progress else (lambda done: None)
        for walk in attacks:
            run = open_run(walk.place)
            if not phases_missing(run) and not run.missing_shards() and written_report(run) is None:
                write_report(run, phases_of(run))
            count(1)


def _say(walks: list["Walk"], place: "Place", outcome: "Outcome", share: "Part", json: bool) -> None:
    """What was done, and what to do with it."""
    about: dict[str, Any] = {
        "folder": str(place), "recorded": outcome.recorded, "found": outcome.found, "failed": len(outcome.failed),
    }  # fmt: skip
    if json:
        print_json(about)
        return
    whose = "" if share.count == 1 else f" of part {share.number}/{share.count}"
    if not outcome.recorded and not outcome.failed:
        console.print(
            f"{place}: all {outcome.found} shards{whose} are there already: nothing to record.",
            soft_wrap=True,
        )
    else:
        console.print(
            f"Shards{whose}: {outcome.recorded} recorded, {outcome.found} found, {len(outcome.failed)} failed."
        )
    folder = shlex.quote(str(place))
    for command, what in (
        (f"uncanny show {folder}", "how far each run came"),
        (f"uncanny results {folder}", "one row a run"),
        (f"uncanny verify {folder}", "every byte against its hash"),
    ):
        console.print(f"  {command}  [dim]{what}[/dim]", soft_wrap=True)
