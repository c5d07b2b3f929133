"""Trainings one after the other, each in its folder, and what is said about them."""

import functools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from uncannyvalley.cli.printing import aside, print_json
from uncannyvalley.cli.training.bars import Bars, training_bars
from uncannyvalley.cli.training.tables import print_estimates, print_result, print_results
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.cli.training.results import Result
    from uncannyvalley.storing.places import Place
    from uncannyvalley.train.plan_file import TrainingCell
    from uncannyvalley.train.request import Training

KEPT = 4
"""Data sets kept between trainings."""


class Loader:
    """Trainings of cells, each data set loaded once for many of them."""

    def __init__(self) -> None:
        from uncannyvalley import data

        self._load = functools.lru_cache(KEPT)(data.load)

    def __call__(self, cell: "TrainingCell") -> "Training":
        from uncannyvalley.train.request import prepare

        try:
            return prepare(cell.request, load=self._load)
        except InputError as error:
            raise InputError(f"{cell.place}: {error}" if cell.labels else str(error)) from error


def carry_out(
    cells: Sequence["TrainingCell"], out: str, grid: str, *, alone: bool, overwrite: bool, json: bool
) -> None:
    """Train what is not trained yet, draw each training, and say what came of it; exit code 1 where one failed.

    grid   the plan spelled out, which is kept beside several cells
    alone  whether there is but one cell, whose folder is ``out`` itself
    """
    from uncannyvalley.storing.places import place_of

    place, load, quiet = place_of(out), Loader(), json or not _speaks()
    results: list[Result] = []
    failed: dict[str, str] = {}
    if not alone:
        _check_all(cells, load)
        _write_grid(place, grid)
    with training_bars(quiet, len(cells)) as bars:
        for cell in cells:
            own = place if alone else place / cell.place
            try:
                results.append(_train(cell, load(cell), own, bars, overwrite))
            except InputError as error:
                if alone:
                    raise
                failed[cell.place] = str(error)
    if _speaks():
        _say(results, failed, str(place), alone, json)
    if failed:
        raise typer.Exit(1)


def _speaks() -> bool:
    """Whether this process is the one that reports: torchrun runs the command in each of its processes."""
    return os.environ.get("RANK", "0") == "0"


def _check_all(cells: Sequence["TrainingCell"], load: Loader) -> None:
    """Every network and data set once, before the first training: a wrong name in the last cell is told now."""
    for cell in {cell.but_for_seed: cell for cell in cells}.values():
        load(cell)


def _write_grid(place: "Place", grid: str) -> None:
    from uncannyvalley.storing.files import write_text
    from uncannyvalley.train.plan import GRID_FILE

    if not _speaks():
        return
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)
    write_text(place / GRID_FILE, f"# uncanny train {GRID_FILE} --out DIR trains these.\n{grid}")


def _train(
    cell: "TrainingCell", training: "Training", place: "Place", bars: Bars | None, overwrite: bool
) -> "Result":
    """One training, with its figure and page where there is anything new to draw."""
    from uncannyvalley.cli.training.results import result_of

    steps, end = bars.start("steps") if bars else (None, None)
    new: list[int] = []

    def progress(done: int, total: int, losses: dict[str, float]) -> None:
        if not new:
            new.append(done)
        if steps:
            steps(done, total, losses)

    try:
        fitted = training.fit(place, overwrite=overwrite, progress=progress)
        return result_of(cell, training, fitted, is_new=bool(new), writes=_speaks())
    finally:
        if end:
            end()


def _say(results: "Sequence[Result]", failed: dict[str, str], out: str, alone: bool, json: bool) -> None:
    if json:
        found: Any = [one.to_dict() for one in results]
        print_json(found[0] if alone else {"folder": out, "trainings": found, "failed": failed})
        return
    if alone:
        print_result(results[0])
    else:
        print_results(results, out)
    for name, why in failed.items():
        aside.print(f"failed: {name}: {why}", style="red", markup=False, soft_wrap=True)
    if failed:
        aside.print("The others were trained. The same command tries the failed ones again.")


def list_cells(cells: Sequence["TrainingCell"], json: bool) -> None:
    """Each training with its steps and the time they take here, from its first steps."""
    from uncannyvalley.train.estimate import TrainingEstimate, estimate

    load, found = Loader(), []
    timed: dict[str, TrainingEstimate] = {}
    with aside.status("timing first steps"):
        for cell in cells:
            if cell.but_for_seed not in timed:
                timed[cell.but_for_seed] = estimate(load(cell))
            found.append((cell, timed[cell.but_for_seed]))
    if json:
        print_json([
            {"place": cell.place, "labels": dict(cell.labels), "steps": one.steps, "looks": one.looks, "seconds": one.seconds}
            for cell, one in found
        ])  # fmt: skip
    else:
        print_estimates(found)


def next_command(result: "Result") -> str:
    """What to do with a fitted network."""
    folder, walk = shlex.quote(result.folder), shlex.quote(f"{result.folder}-walk")
    return f"uncanny record --model {folder}{result.model_words} --data {shlex.quote(result.judged_on)} --out {walk}"
