"""``uncanny compare``: several recorded runs side by side, and how far each is from the first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.comparison_tables import print_comparison
from uncannyvalley.cli.printing import console, print_json
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.analysis.comparison import Comparison
    from uncannyvalley.run.folder import RunFolder

MOST_RUNS = 12
FIGURES = (".png", ".svg")


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="2 to 12 runs: folders of uncanny record, or of studies.", show_default=False),
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
    from uncannyvalley.analysis.comparison import compare_runs
    from uncannyvalley.analysis.walked import Walked
    from uncannyvalley.run.naming import decided
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
    differing = decided({name: run.plan for name, run in folders.items()})
    files = {} if place is None else {"figure": str(_draw(found, folders, place))}
    if json:
        about = {name: _about(run) for name, run in folders.items()}
        print_json({"runs": about, "decided": differing, "files": files, **found.to_dict(), "notes": notes})
        return
    print_comparison(found, {name: run.path for name, run in folders.items()}, differing, notes)
    console.print()
    for name, path in files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)
    if not files:
        console.print("[dim]--out comparison.png draws the walks; --json prints every number.[/dim]")


def _open(folders: Sequence[str]) -> list["RunFolder"]:
    """The runs of these folders, checked: 2 to 12 different ones, each with a finished shard."""
    from uncannyvalley.study.folder import open_study

    def refused(count: int) -> InputError:
        return InputError(
            f"compare takes 2 to {MOST_RUNS} run folders, got {count}; see uncanny phases for one run"
        )

    if len(folders) > MOST_RUNS:
        raise refused(len(folders))
    _check_different(folders)
    runs = [one.run for folder in folders for one in open_study(folder).runs]
    if not 2 <= len(runs) <= MOST_RUNS:
        raise refused(len(runs))
    for run in runs:
        _ = run.trajectory  # says now what is missing or broken
    return runs


def _check_different(folders: Sequence[str]) -> None:
    places: dict[str, str] = {}
    for folder in folders:
        place = folder if "://" in folder else str(Path(folder).resolve())
        if place in places:
            raise InputError(f"{folder} is the same folder as {places[place]}; give each run once")
        places[place] = folder


def _names(runs: Sequence["RunFolder"], given: list[str] | None) -> list[str]:
    """The names given, or for each run what differs among them, and its folder where that is not enough."""
    from uncannyvalley.run.naming import run_names

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
    from uncannyvalley.analysis.common_axis import SHARPNESS
    from uncannyvalley.report.drawings.comparison import draw_comparison
    from uncannyvalley.report.drawings.figures import to_png, to_svg
    from uncannyvalley.run.naming import title_of
    from uncannyvalley.storing.files import cannot_write, write_bytes

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
