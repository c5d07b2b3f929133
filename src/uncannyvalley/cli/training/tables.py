"""How trainings look in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uncannyvalley.cli.printing import console, print_table, shared_and_varying

if TYPE_CHECKING:
    from uncannyvalley.cli.training.results import Judged, Result
    from uncannyvalley.report.detectors.section import ResultTable
    from uncannyvalley.train.estimate import TrainingEstimate
    from uncannyvalley.train.plan_file import TrainingCell

MOST_ROWS = 200
"""Up to so many trainings are listed one by one."""


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "–" if share is None else f"{100 * share:.1f} %"


def result_table(result: "Result") -> "ResultTable":
    """Accuracies of the network that was kept."""
    from uncannyvalley.report.detectors.section import ResultTable

    header = ["", "images", "clean", *(["under the attack"] if result.attack else [])]
    rows = [
        [one.name, str(one.images), percent(one.clean), *([percent(one.robust)] if result.attack else [])]
        for one in result.judged
    ]
    note = (
        f"Attack: {result.attack}. Robust are images that are right as they are and at every iterate."
        if result.attack
        else ""
    )
    return ResultTable(f"The network of epoch {result.best['epoch']}", header, rows, note)


def print_result(result: "Result") -> None:
    """One training: accuracies, files, and what to do with the network."""
    from uncannyvalley.cli.training.carrying import next_command

    if not result.is_new:
        console.print(f"{result.folder} is complete already: nothing to train.", soft_wrap=True)
    table = result_table(result)
    print_table(f"{table.title} of {result.epochs}", table.header, table.rows)
    if table.note:
        console.print(f"[dim]{table.note}[/dim]", soft_wrap=True)
    console.print()
    for name, path in result.files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)
    console.print(f"\n  {next_command(result)}", soft_wrap=True, markup=False)


def print_results(results: "Sequence[Result]", out: str) -> None:
    """Several trainings, one row each."""
    if not results:
        return
    shared, varying = shared_and_varying([one.labels for one in results])
    judged = list(dict.fromkeys(one.name for result in results for one in result.judged))
    header = [
        *varying,
        "epoch",
        *(f"{name} {kind}" for name in judged for kind in ("clean", "robust")),
        "seconds",
    ]
    attacks = list(dict.fromkeys(one.attack for one in results if one.attack))
    if len(attacks) > 1:
        header.append("robust to")
    rows = []
    for result in results[:MOST_ROWS]:
        by_name = {one.name: one for one in result.judged}
        cells = [cell for name in judged for cell in _accuracies(by_name.get(name))]
        rows.append(
            [
                *(result.labels[axis] for axis in varying),
                str(result.best["epoch"]),
                *cells,
                f"{result.seconds:.0f}",
                *([result.attack or "–"] if len(attacks) > 1 else []),
            ]
        )
    title = "; ".join([f"Trainings in {out}", *([shared] if shared else [])])
    print_table(title, header, rows, left=len(varying))
    if len(results) > MOST_ROWS:
        console.print(f"… and {len(results) - MOST_ROWS} more (--json lists all)")
    if len(attacks) == 1:
        console.print(f"[dim]robust: {attacks[0]}[/dim]", soft_wrap=True)
    new = sum(one.is_new for one in results)
    console.print(f"\n{new} trained, {len(results) - new} complete already.")


def _accuracies(judged: "Judged | None") -> list[str]:
    return ["–", "–"] if judged is None else [percent(judged.clean), percent(judged.robust)]


def print_estimates(found: "Sequence[tuple[TrainingCell, TrainingEstimate]]") -> None:
    """Each training, and how long all of them take one after the other."""
    from uncannyvalley.cli.estimate_tables import duration

    labels = [cell.labels for cell, _ in found]
    shared, varying = shared_and_varying(labels) if labels[0] else ("", [])
    rows = [
        [*(cell.labels[axis] for axis in varying), str(one.steps), str(one.looks), _duration(one.seconds)]
        for cell, one in found[:MOST_ROWS]
    ]
    print_table(
        "; ".join(filter(None, ["Trainings", shared])),
        [*varying, "steps", "looks", "time"],
        rows,
        left=len(varying),
    )
    if len(found) > MOST_ROWS:
        console.print(f"… and {len(found) - MOST_ROWS} more (--json lists all)")
    seconds = sum(one.seconds or 0.0 for _, one in found)
    console.print(
        f"\n{len(found)} trainings take {duration(seconds)}, one after the other, as their first steps do here."
    )


def _duration(seconds: float | None) -> str:
    from uncannyvalley.cli.estimate_tables import duration

    return "–" if seconds is None else duration(seconds)
