"""The tables of ``uncanny compare``: runs, phases, differences, measures, and what decided them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING

from rich.text import Text

from uncannyvalley.cli.printing import console, print_table

if TYPE_CHECKING:
    from uncannyvalley.analysis.comparison import Comparison
    from uncannyvalley.analysis.walked import Moves

SHORT = 24
"""Longest name that goes into a table's rows as it is."""

IMPORTANT = (
    "label flipped", "ridge (×10, ÷10)", "valley after flip", "height, nats", "depth, nats",
    "flip at step", "examples", "compared", "misclassified", "valley from step", "climb, nats", "descent, nats",
)  # fmt: skip
"""Rows that a table with one line a run shows, as far as the terminal is wide enough."""

CORNER = "[95 % interval]"


def print_comparison(
    found: "Comparison",
    paths: Mapping[str, Path],
    differing: Mapping[str, Mapping[str, str]],
    notes: Sequence[str],
) -> None:
    """Everything of ``found`` that a terminal has room for.

    paths: run → folder. differing: part of the plan → run → its value, where they differ.
    """
    labels = _labels(found)
    _print_folders(found.baseline, paths, labels)
    console.print()
    _print_phases(found, labels)
    console.print()
    _print_differences(found, labels)
    console.print()
    _print_measures(found, labels)
    if differing:
        console.print()
        _print_decided(differing, labels)
    for note in notes:
        console.print(Text(f"note: {note}", style="yellow"))


def _labels(found: "Comparison") -> dict[str, str]:
    """Name → what stands for it where room is short: itself, or a letter where names are long."""
    names = [walk.name for walk in found.walks]
    short = max(map(len, names)) <= SHORT
    labels = dict(zip(names, names if short else ascii_uppercase, strict=False))
    for name, controls in found.controls.items():
        labels |= {one.name: one.name.removesuffix(name) + labels[name] for one in controls}
    return labels


def _print_folders(baseline: str, paths: Mapping[str, Path], labels: Mapping[str, str]) -> None:
    """What each name and letter stands for."""
    first = 0 if any(labels[name] != name for name in paths) else 1
    rows = [
        [labels[name], name, f"{path}{' (baseline)' if name == baseline else ''}"][first:]
        for name, path in paths.items()
    ]
    print_table("Runs", ["", "name", "folder"][first:], rows, left=3)


def _print_phases(found: "Comparison", labels: Mapping[str, str]) -> None:
    table = found.phase_table()
    examples, *rows = table.cells()
    misclassified = ("misclassified", [str(walk.misclassified) for walk in table.walks])
    _print_runs("Phases", [walk.name for walk in table.walks], labels, [examples, misclassified, *rows])
    for name, doubts in found.doubts.items():
        for one in doubts:
            console.print(Text(f"warning: {labels[name]}: {one}", style="yellow"))


def _print_differences(found: "Comparison", labels: Mapping[str, str]) -> None:
    baseline, names = labels[found.baseline], [one.second for one in found.contrasts]
    cells = [one.cells() for one in found.contrasts]
    rows = [(row[0][0], [cell for _, cell in row]) for row in zip(*cells, strict=True)]
    _print_runs(f"Differences from {baseline}", names, labels, rows)
    remarks = []
    if paired := [labels[one.second] for one in found.contrasts if one.paired]:
        which = "" if len(paired) == len(names) else f": {', '.join(paired)}"
        remarks.append(f"Paired with {baseline} over the images that both classified correctly{which}.")
    remarks += [
        f"Not paired: {labels[one.second]} ({one.reason})." for one in found.contrasts if not one.paired
    ]
    remarks.append(
        "Fractions in points, steps, height and depth as differences of medians; each interval holds by itself."
    )
    for remark in remarks:
        console.print(Text(remark, style="dim"))


def _print_runs(
    title: str, names: Sequence[str], labels: Mapping[str, str], rows: Sequence[tuple[str, list[str]]]
) -> None:
    """One column a run where that fits the terminal, else one line a run with the important figures."""
    headers = [name.replace(", ", "\n") for name in names]
    columns = [[header, *(cells[place] for _, cells in rows)] for place, header in enumerate(headers)]
    if _width([[CORNER, *(row for row, _ in rows)], *columns]) <= console.width:
        print_table(title, [CORNER, *headers], [[row, *cells] for row, cells in rows])
        return
    shown: list[list[str]] = [["", *(labels[name] for name in names)]]
    of_title = dict(rows)
    for row in (one for one in IMPORTANT if one in of_title):
        column = [row.replace(" ", "\n"), *(cell.replace(" [", "\n[") for cell in of_title[row])]
        if _width([*shown, column]) <= console.width:
            shown.append(column)
    header, *lines = zip(*shown, strict=True)
    print_table(f"{title} {CORNER}", header, lines)
    console.print(
        f"[dim]{len(rows) - len(shown) + 1} more figures of each: in a wider terminal, or with --json.[/dim]"
    )


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Letters that a table with two spaces between its columns takes."""
    widest = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    return sum(widest) + 2 * (len(columns) - 1)


def _print_measures(found: "Comparison", labels: Mapping[str, str]) -> None:
    rows = []
    for measure, moves in found.measures.items():
        rows.append([measure, f"[{found.units[measure]}]", "", "", ""])
        rows += [[f"  {labels[name]}", *_moves_cells(one)] for name, one in moves.items()]
    if rows:
        print_table("Measures", ["median of", "clean", "at the flip", "at the end", "change [95 %]"], rows)


def _moves_cells(moves: "Moves | None") -> list[str]:
    if moves is None:
        return ["–"] * 4
    change = moves.change
    span = f"{change.value:+.3g} [{change.low:+.2g}, {change.high:+.2g}]"
    points = [(one.value, f"{one.value:.3g}") for one in (moves.clean, moves.flip, moves.end)]
    return ["–" if math.isnan(value) else cell for value, cell in (*points, (change.value, span))]


def _print_decided(differing: Mapping[str, Mapping[str, str]], labels: Mapping[str, str]) -> None:
    """One line for each value, with the runs that have it."""
    rows = []
    for key, values in differing.items():
        by_value: dict[str, list[str]] = {}
        for name, value in values.items():
            by_value.setdefault(value, []).append(labels[name])
        rows += [
            ["" if place else key, value, ", ".join(names)]
            for place, (value, names) in enumerate(by_value.items())
        ]
    print_table("What decided the runs where they differ", ["", "value", "runs"], rows, left=3)
