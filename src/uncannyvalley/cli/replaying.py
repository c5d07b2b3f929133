"""``uncanny replay``: the recorded path under another head, beside what was recorded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_json
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.analysis.phase_table import Phases
    from uncannyvalley.replaying.replayable_run import ReplayableRun
    from uncannyvalley.replaying.replayed_walk import ChosenHead


def replay(
    run_dir: options.RunDir,
    temperature: Annotated[
        float | None, typer.Option(help="Divide the head's weights and bias by this.", show_default=False)
    ] = None,
    temperatures: Annotated[
        str | None, typer.Option(help="Several of them, as 0.5,1,2,4: a row each.", show_default=False)
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="Another head: FILE.safetensors (weight, bias), etf (nearest simplex frame) or smoothed (fitted with smoothed "
            "labels); needs a run with --keep features.",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[int, typer.Option(help="Which of several restarts.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for figure, JSON, replayed walk (Parquet) and head.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show the recorded path under another head: what if the network had been more or less sure?

    Reads the logits (or features) that the run kept; needs neither the network nor the images. The path stays the recorded
    one: attacking the changed head again is another run.
    """
    from uncannyvalley.cli.replay_files import write_replays
    from uncannyvalley.cli.replay_tables import print_replays, replays_as_json
    from uncannyvalley.replaying.replayable_run import replayable_run
    from uncannyvalley.run.folder import open_run

    asked = _asked(temperature, temperatures, head)
    _check_out(out, restart)
    found = replayable_run(open_run(run_dir), restart)
    several = temperatures is not None
    replays = _replays(found, asked, head, all_measures=out is not None and not several)
    files = {} if out is None else write_replays(found, replays, out, several=several)
    if json:
        print_json({**replays_as_json(found, replays), "files": files})
        return
    print_replays(found, replays, several=several)
    for name, path in files.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)


def _asked(temperature: float | None, temperatures: str | None, head: str | None) -> list[float | None]:
    """The temperatures to replay at; None leaves the head as hot as it is."""
    if temperatures is None:
        if temperature is None and head is None:
            raise InputError(
                "say what to replay with: --temperature 4, --temperatures 0.5,1,2,4 or --head etf"
            )
        return [temperature]
    if temperature is not None:
        raise InputError("give --temperature or --temperatures, not both")
    try:
        found = [float(one) for one in options.names(temperatures) or []]
    except ValueError:
        found = []
    if not found:
        raise InputError(f"--temperatures takes numbers with commas between them, got {temperatures!r}")
    return list(found)


def _check_out(out: Path | None, restart: int) -> None:
    from uncannyvalley.run.plan import PLAN_FILE

    if out is not None and restart:
        raise InputError("--out draws and writes the first restart; leave --restart out, or --out")
    if out is not None and (out / PLAN_FILE).exists():
        raise InputError(f"{out} is a run folder, and stays as it was recorded; give --out another folder")


def _replays(
    found: "ReplayableRun", asked: list[float | None], head: str | None, *, all_measures: bool
) -> "list[tuple[ChosenHead, Phases]]":
    """Each head that was asked for, with the phases under it; a head is found once for all temperatures."""
    from dataclasses import replace

    from uncannyvalley.replaying.replayable_run import SHOWN_MEASURES
    from uncannyvalley.replaying.replayed_walk import check_temperature

    first = found.head(asked[0], head)
    heads = [replace(first, temperature=1.0 if one is None else check_temperature(one)) for one in asked]
    measures = None if all_measures else SHOWN_MEASURES
    return [(one, found.under(one, measures)) for one in heads]
