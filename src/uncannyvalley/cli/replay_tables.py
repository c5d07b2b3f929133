"""How replays look in a terminal: recorded beside replayed, or a line for each temperature."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from uncannyvalley.cli.printing import console, print_doubts, print_table
from uncannyvalley.replaying.replayed_walk import RECORDED

if TYPE_CHECKING:
    from uncannyvalley.analysis.phase_table import Phases
    from uncannyvalley.analysis.summary import PhaseSummary
    from uncannyvalley.replaying.replayable_run import ReplayableRun
    from uncannyvalley.replaying.replayed_walk import ChosenHead

ROWS_OF_CONTROLS = ("label flipped", "ends below clean", "height, nats", "depth, nats")
ROWS_OF_HEADS = ("valley after flip", "ends below clean", "height, nats", "depth, nats")
"""Rows of the phases that are shown where there is a column, or a line, for each walk."""

CORNER = "[95 % interval]"

CAUTION = (
    "This replays the recorded path. An attack on the changed head would choose its own steps: that is another run, of a model "
    "file of yours whose network has that head (--out writes the head):"
)


def print_replays(
    found: "ReplayableRun", replays: "Sequence[tuple[ChosenHead, Phases]]", *, several: bool
) -> None:
    """The tables, the reading of the last replay, and what a replay does not say."""
    from uncannyvalley.analysis.reading import reading

    chosen, phases = replays[-1]
    if several:
        _print_heads(found, replays)
    else:
        summary = phases.summary()
        _print_both(found.recorded.summary(), summary, chosen.words)
        console.print()
        console.print(reading(summary))
    console.print()
    _print_left_out(phases)
    console.print(CAUTION)
    console.print(Text(command(found), style="dim"), soft_wrap=True)


def _print_both(recorded: "PhaseSummary", replayed: "PhaseSummary", words: str) -> None:
    """The attack's phases in two columns, then those of each control in two more."""
    pair = _side_by_side(recorded, replayed, 0)
    rows = [[title, *cells] for title, cells in pair.cells()]
    before = [pair.words.before, *(str(one.misclassified) for one in pair.walks)]
    print_table(
        f"Phases of {recorded.walks[0].name}", [CORNER, RECORDED, words], [rows[0], before, *rows[1:]]
    )
    print_doubts(replayed.diagnostics)
    controls = [_side_by_side(recorded, replayed, place) for place in range(1, len(recorded.walks))]
    if not controls:
        return
    header = [CORNER, *(f"{one.walks[0].name}, {what}" for one in controls for what in (RECORDED, words))]
    columns = [dict(one.cells()) for one in controls]
    rows = [[row, *(cell for column in columns for cell in column[row])] for row in ROWS_OF_CONTROLS]
    console.print()
    _print_fitting("Controls", header, rows)


def _print_fitting(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The table, with intervals under their numbers where they do not fit beside them."""
    columns = list(zip(header, *rows, strict=True))
    if sum(max(map(len, column)) + 2 for column in columns) - 2 > console.width:
        header = [one.replace(", ", ",\n") for one in header]
        rows = [[cell.replace(" [", "\n[") for cell in row] for row in rows]
    print_table(title, header, rows)


def _side_by_side(recorded: "PhaseSummary", replayed: "PhaseSummary", place: int) -> "PhaseSummary":
    return replace(replayed, walks=(recorded.walks[place], replayed.walks[place]))


def _print_heads(found: "ReplayableRun", replays: "Sequence[tuple[ChosenHead, Phases]]") -> None:
    recorded = found.recorded.summary()
    walks = [recorded.walks[0], *(phases.own_summary for _, phases in replays)]
    names = [RECORDED, *(chosen.words for chosen, _ in replays)]
    cells = dict(replace(recorded, walks=tuple(walks)).cells())
    rows = [[name, *(cells[row][place] for row in ROWS_OF_HEADS)] for place, name in enumerate(names)]
    _print_fitting(f"Phases of {walks[0].name} {CORNER}", ["head", *ROWS_OF_HEADS], rows)


def _print_left_out(phases: "Phases") -> None:
    by_reason: dict[str, list[str]] = {}
    for name, reason in phases.trajectory.about["replayed"]["left_out"].items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        console.print(Text(f"Left out: {', '.join(names)} ({reason}).", style="dim"))


def command(found: "ReplayableRun") -> str:
    """The command of that run, but for the model file, which only the user can write."""
    from uncannyvalley.report.pages.command import command_of

    run = found.run
    plan = run.plan
    model = plan.model.model_copy(update={"spec": "FILE.py:build", "arguments": {}, "weights": ""})
    changed = plan.model_copy(update={"model": model})
    return command_of(replace(run, path=run.path.parent / f"{run.path.name}-changed-head", plan=changed))


def replays_as_json(found: "ReplayableRun", replays: "Sequence[tuple[ChosenHead, Phases]]") -> dict[str, Any]:
    """Everything the tables say, as plain numbers."""
    from uncannyvalley.analysis.reading import reading

    recorded = found.recorded.summary()
    return {
        "run": str(found.run.path),
        "recorded": recorded.to_dict(),
        "replayed": [
            {
                "temperature": chosen.temperature,
                "head": chosen.name,
                "left_out": phases.trajectory.about["replayed"]["left_out"],
                **(summary := phases.summary()).to_dict(),
                "reading": reading(summary),
            }
            for chosen, phases in replays
        ],
        "caution": CAUTION,
        "attack_again": command(found),
    }
