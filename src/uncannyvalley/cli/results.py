"""``uncanny results``: a study as a table of one row a run, on the screen, in files, or with a tracker."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.printing import console, print_json, print_table

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = {
    "clean": ("accuracy_clean", ".0%"),
    "end": ("accuracy_end", ".0%"),
    "flipped": ("flipped", ".0%"),
    "valley": ("valley", ".0%"),
    "height": ("ridge_height", ".2f"),
    "depth": ("depth", ".2f"),
    "seconds": ("seconds", ".1f"),
}
"""Columns on the screen, the last ones only where there is room: title → column of the table and its format."""

LEGEND = (
    "clean, end: correct before the walk and at its last row; flipped, valley: of those that were correct before; height, depth: "
    "medians in nats."
)


def results(
    folder: options.StudyDir,
    controls: Annotated[bool, typer.Option("--controls", help="Also a row for each control walk.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.", show_default=False)] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Write the table as Parquet, with units.", show_default=False)
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(
            help="Send each row as a run of this W&B project; again updates it.", show_default=False
        ),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(
            help="Send each row as a run of this MLflow experiment; again updates it.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Print one row a run: how far it came, accuracy, flips, ridge and valley. Files and trackers get all columns."""
    from uncannyvalley.study.folder import open_study
    from uncannyvalley.study.results import results as results_of

    study = open_study(folder)
    table = results_of(study, controls=controls)
    written = {name: str(path) for name, path in (("csv", csv), ("parquet", parquet)) if path is not None}
    if csv is not None:
        _write_csv(table, csv)
    if parquet is not None:
        _write_parquet(table, parquet)
    sent = _send(table, wandb, mlflow, study.path.name)
    if json:
        units = {one.name: one.metadata[b"unit"].decode() for one in table.schema if b"unit" in one.metadata}
        print_json(
            {
                "runs": [_plain(row) for row in table.to_pylist()],
                "units": units,
                "files": written,
                "sent": sent,
            }
        )
        return
    _print(table, f"{study.path}")
    console.print()
    for name, path in written.items():
        console.print(f"[bold]{name:>7}[/bold]  {path}", soft_wrap=True)
    for name, count in sent.items():
        console.print(f"[bold]{name:>7}[/bold]  {count} runs sent", soft_wrap=True)
    if not written and not sent:
        console.print("[dim]--csv FILE, --parquet FILE and --json have every column, with intervals.[/dim]")


def _print(table: "pa.Table", title: str) -> None:
    """Labels that differ, shards where some are missing, and of SHOWN what any run has, as far as there is room."""
    from uncannyvalley.study.results import LABEL, ROLE

    rows = table.to_pylist()
    labels = [field.name for field in table.schema if field.metadata[ROLE] == LABEL.encode()]
    differing = [name for name in labels if len({row[name] for row in rows}) > 1] or ["attack"]
    shared = ", ".join(f"{name} {rows[0][name]}" for name in labels if name not in differing)
    columns = {name: [str(row[name]) for row in rows] for name in differing}
    columns["images"] = [str(row["images"] or 0) for row in rows]
    if any(row["state"] != "complete" for row in rows):
        columns["shards"] = [f"{row['shards_done']}/{row['shards']}" for row in rows]
    for name, (source, spec) in SHOWN.items():
        if any(row[source] is not None for row in rows):
            columns[name] = [_figure(row[source], spec) for row in rows]
    while _width(columns) > console.width and len(columns) > len(differing) + 1:
        columns.popitem()
    cells = [list(row) for row in zip(*columns.values(), strict=True)]
    print_table(
        f"{title}: {len(rows)} {'row' if len(rows) == 1 else 'rows'}{f'; {shared}' if shared else ''}",
        list(columns),
        cells,
        left=len(differing),
    )
    console.print(f"[dim]{LEGEND}[/dim]")
    doubtful = sorted({name for row in rows for name in (row["doubts"] or "").split("; ") if name})
    if doubtful:
        console.print(
            f"[yellow]Doubts that fired in some runs (column doubts): {', '.join(doubtful)}[/yellow]"
        )


def _width(columns: Mapping[str, list[str]]) -> int:
    """Characters of a row, two between columns."""
    return sum(max(map(len, (name, *cells))) + 2 for name, cells in columns.items()) - 2


def _figure(value: float | None, spec: str) -> str:
    return "–" if value is None else f"{value:{spec}}"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no infinities."""
    from math import isinf

    return {name: None if isinstance(value, float) and isinf(value) else value for name, value in row.items()}


def _write_csv(table: "pa.Table", path: Path) -> None:
    from pyarrow import csv

    from uncannyvalley.storing.files import write_whole

    _make_folder(path)
    write_whole(path, lambda scratch: csv.write_csv(table, scratch))


def _write_parquet(table: "pa.Table", path: Path) -> None:
    import pyarrow.parquet as pq

    from uncannyvalley.storing.files import write_whole

    _make_folder(path)
    write_whole(path, lambda scratch: pq.write_table(table, scratch, write_page_checksum=True))


def _make_folder(path: Path) -> None:
    """The folder of a file to write; InputError where there cannot be one, or the file is a folder."""
    from uncannyvalley.errors import InputError
    from uncannyvalley.storing.files import cannot_write

    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _send(table: "pa.Table", wandb: str | None, mlflow: str | None, study: str) -> dict[str, int]:
    """How many rows went to each tracker."""
    from uncannyvalley.study.tracking import to_mlflow, to_wandb

    sent = {}
    if wandb is not None:
        sent["wandb"] = len(to_wandb(table, wandb, group=study))
    if mlflow is not None:
        sent["mlflow"] = len(to_mlflow(table, mlflow))
    return sent
