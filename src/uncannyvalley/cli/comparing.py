"""``uncanny compare``: several recorded runs side by side, and how far each is from the first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_json, print_table
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.analysis.comparison import Comparison, Moves
    from uncannyvalley.run.folder import RunFolder

MOST_RUNS = 12
LETTERS = "ABCDEFGHIJKL"
SHORT = 24
"""Longest name that goes into a table's rows as it is."""

FIGURES = (".png", ".svg")

IMPORTANT = (
    "label flipped", "ridge (×10, ÷10)", "valley after flip", "height, nats", "depth, nats",
    "flip at step", "examples", "compared", "misclassified", "valley from step", "climb, nats", "descent, nats",
)  # fmt: skip
"""Rows that a table with one line a run shows, as far as the terminal is wide enough."""


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="2 to 12 folders that uncanny record wrote.", show_default=False)
    ],
    names: Annotated[
        str | None, typer.Option(help="Comma-separated names; by what differs if left out.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Name of the run the others are held against; the first if left out.")
    ] = None,
    measures: Annotated[
        str | None, typer.Option(help="Comma-separated measures to show at clean, flip and end.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Also show each run's own control walks.")
    ] = False,
    axis: Annotated[
        str | None,
        typer.Option(help="Of the figure: step, or fraction of each walk; by their lengths if left out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Figure: a .png or .svg file, or a folder.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare recorded runs: phases, shares and measures side by side, and their differences with intervals."""
    from uncannyvalley.analysis.comparison import Walked, compare_runs
    from uncannyvalley.report.comparison import decided
    from uncannyvalley.run.request import doubts_of

    place = None if out is None else _figure_file(out)
    opened = _open(runs)
    folders = dict(zip(_names(opened, options.names(names)), opened, strict=True))
    walked = {
        name: Walked(run.trajectory, run.plan.data.fingerprint, run.controls(), doubts_of(run))
        for name, run in folders.items()
    }
    found = compare_runs(
        walked, baseline=baseline, measures=options.names(measures), axis=axis, controls=controls
    )
    notes = [*_unfinished(folders), *_same(folders), *found.notes]
    differing = decided({name: run.plan for name, run in folders.items()}, found.baseline)
    files = {} if place is None else {"figure": str(_draw(found, folders, place))}
    if json:
        about = {name: _about(run) for name, run in folders.items()}
        print_json({"runs": about, "decided": differing, "files": files, **found.to_dict(), "notes": notes})
        return
    _print(found, folders, differing, notes)
    console.print()
    for name, path in files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)
    if not files:
        console.print("[dim]--out comparison.png draws the walks; --json prints every number.[/dim]")


def _open(paths: Sequence[Path]) -> list["RunFolder"]:
    """The runs, checked: 2 to 12 different folders, each with a finished shard."""
    from uncannyvalley.run.folder import open_run

    if not 2 <= len(paths) <= MOST_RUNS:
        raise InputError(
            f"compare takes 2 to {MOST_RUNS} run folders, got {len(paths)}; see uncanny phases for one run"
        )
    places: dict[Path, Path] = {}
    for path in paths:
        if (place := path.resolve()) in places:
            raise InputError(f"{path} is the same folder as {places[place]}; give each run once")
        places[place] = path
    runs = [open_run(path) for path in paths]
    for run in runs:
        _ = run.trajectory  # says now what is missing or broken
    return runs


def _names(runs: Sequence["RunFolder"], given: list[str] | None) -> list[str]:
    """The names given, or for each run what differs among them, and its folder where that is not enough."""
    from uncannyvalley.report.comparison import run_names

    if given is None:
        return run_names([run.plan for run in runs], [run.path for run in runs])
    if len(given) != len(runs) or len(set(given)) != len(given):
        raise InputError(
            f"--names takes {len(runs)} different names, one for each run, got {', '.join(given) or 'none'}"
        )
    return given


def _unfinished(folders: Mapping[str, "RunFolder"]) -> list[str]:
    notes = []
    for name, run in folders.items():
        if missing := len(run.missing_shards()):
            shards = len(run.plan.shards())
            notes.append(
                f"{name} is unfinished: {shards - missing} of {shards} shards ({len(run.trajectory)} of {run.plan.data.examples} "
                "images) are compared."
            )
    return notes


def _same(folders: Mapping[str, "RunFolder"]) -> list[str]:
    """Runs in different folders that are the same run."""
    by_key: dict[str, list[str]] = {}
    for name, run in folders.items():
        by_key.setdefault(run.plan.key, []).append(name)
    return [
        f"{' and '.join(same)} are the same run (their keys agree)."
        for same in by_key.values()
        if len(same) > 1
    ]


def _about(run: "RunFolder") -> dict[str, Any]:
    return {
        "folder": str(run.path), "key": run.plan.key, "complete": not run.missing_shards(),
        "images": len(run.trajectory), "plan": run.plan.model_dump(mode="json"),
    }  # fmt: skip


def _draw(found: "Comparison", folders: Mapping[str, "RunFolder"], path: Path) -> Path:
    """The figure as a whole file; InputError where no run recorded what it shows."""
    from uncannyvalley.analysis.comparison import SHARPNESS
    from uncannyvalley.report.comparison import draw_comparison, title_of
    from uncannyvalley.report.figures import to_png, to_svg
    from uncannyvalley.run.files import cannot_write, write_bytes

    if all(run.curve is None for run in found.drawn.values()):
        raise InputError(
            f"--out draws {SHARPNESS} of correctly classified images, which none of these runs has"
        )
    figure = draw_comparison(title_of([run.plan for run in folders.values()]), found)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_bytes(path, to_svg(figure).encode() if path.suffix == ".svg" else to_png(figure))
    return path


def _figure_file(out: Path) -> Path:
    """Where the figure goes: the file, or comparison.png in a folder."""
    if out.is_dir() or not out.suffix:
        return out / "comparison.png"
    if out.suffix not in FIGURES:
        raise InputError(f"--out takes a {' or '.join(FIGURES)} file, or a folder, got {out}")
    return out


def _print(
    found: "Comparison",
    folders: Mapping[str, "RunFolder"],
    differing: Mapping[str, Mapping[str, str]],
    notes: Sequence[str],
) -> None:
    labels = _labels(found)
    _print_folders(found, folders, labels)
    walks = found.phase_table().walks
    correct, *rows = found.phase_table().cells()
    wrong = ("misclassified", [str(walk.misclassified) for walk in walks])
    _print_runs("Phases", [walk.name for walk in walks], labels, [correct, wrong, *rows])
    for name, doubts in found.doubts.items():
        for one in doubts:
            console.print(Text(f"warning: {labels[name]}: {one}", style="yellow"))
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
    labels = dict(zip(names, names if short else LETTERS, strict=False))
    for name, controls in found.controls.items():
        labels |= {one.name: one.name.removesuffix(name) + labels[name] for one in controls}
    return labels


def _print_folders(
    found: "Comparison", folders: Mapping[str, "RunFolder"], labels: Mapping[str, str]
) -> None:
    """What each name and letter stands for."""
    rows = [
        [
            "" if labels[name] == name else labels[name],
            name,
            f"{run.path}{' (baseline)' if name == found.baseline else ''}",
        ]
        for name, run in folders.items()
    ]
    first = 0 if rows[0][0] else 1
    print_table("Runs", ["", "name", "folder"][first:], [row[first:] for row in rows], left=3)
    console.print()


def _print_runs(
    title: str, names: Sequence[str], labels: Mapping[str, str], rows: Sequence[tuple[str, list[str]]]
) -> None:
    """One column a run where that fits the terminal, else one line a run with the important figures."""
    corner = "[95 % interval]"
    headers = [name.replace(", ", "\n") for name in names]
    columns = [[header, *(cells[place] for _, cells in rows)] for place, header in enumerate(headers)]
    if _width([[corner, *(row for row, _ in rows)], *columns]) <= console.width:
        print_table(title, [corner, *headers], [[row, *cells] for row, cells in rows])
        return
    shown: list[list[str]] = [["", *(labels[name] for name in names)]]
    of_title = dict(rows)
    for row in (one for one in IMPORTANT if one in of_title):
        column = [row.replace(" ", "\n"), *(cell.replace(" [", "\n[") for cell in of_title[row])]
        if _width([*shown, column]) <= console.width:
            shown.append(column)
    lines = list(zip(*(column[1:] for column in shown), strict=True))
    print_table(f"{title} {corner}", [column[0] for column in shown], lines)
    console.print(
        f"[dim]{len(rows) - len(shown) + 1} more figures of each: in a wider terminal, or with --json.[/dim]"
    )


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Letters that a table with two spaces between its columns takes."""
    widest = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    return sum(widest) + 2 * (len(columns) - 1)


def _print_differences(found: "Comparison", labels: Mapping[str, str]) -> None:
    names = [one.second for one in found.contrasts]
    cells = [one.cells() for one in found.contrasts]
    rows = [(row[0][0], [cell for _, cell in row]) for row in zip(*cells, strict=True)]
    _print_runs(f"Differences from {labels[found.baseline]}", names, labels, rows)
    paired = [one for one in found.contrasts if one.paired]
    if paired:
        text = (
            f"Paired with {labels[found.baseline]} over the images that both classified correctly"
            f"{'' if len(paired) == len(names) else ': ' + ', '.join(labels[one.second] for one in paired)}."
        )
        console.print(Text(text, style="dim"))
    for one in found.contrasts:
        if not one.paired:
            console.print(Text(f"Not paired: {labels[one.second]} ({one.reason}).", style="dim"))
    text = "Fractions in points, steps, height and depth as differences of medians; each interval holds by itself."
    console.print(Text(text, style="dim"))


def _print_measures(found: "Comparison", labels: Mapping[str, str]) -> None:
    rows = []
    for measure, moves in found.measures.items():
        rows.append([measure, f"[{found.units[measure]}]", "", "", ""])
        rows += [[f"  {labels[name]}", *_moves_cells(one)] for name, one in moves.items()]
    header = ["median of", "clean", "at the flip", "at the end", "change [95 %]"]
    if rows:
        print_table("Measures", header, rows)


def _moves_cells(moves: "Moves | None") -> list[str]:
    if moves is None:
        return ["–"] * 4
    values = [one.value for one in (moves.clean, moves.flip, moves.end)]
    change = moves.change
    span = (
        "–"
        if change.value != change.value
        else f"{change.value:+.3g} [{change.low:+.2g}, {change.high:+.2g}]"
    )
    return [*("–" if value != value else f"{value:.3g}" for value in values), span]


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
