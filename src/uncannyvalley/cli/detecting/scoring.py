"""``uncanny detect score``: p-values of images, and what made them suspicious."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.detecting import choices
from uncannyvalley.cli.detecting.networks import check_shape, given_name, open_detector
from uncannyvalley.cli.detecting.promise import interval_of, promise_of, share
from uncannyvalley.cli.detecting.sources import Source, read_images
from uncannyvalley.cli.printing import console, print_json, print_table, progress_bars

if TYPE_CHECKING:
    import pyarrow as pa

    from uncannyvalley.detect.image_detector import ImageDetector


def score(
    detector: choices.DetectorFile,
    images: Annotated[
        str,
        typer.Argument(
            help="digits, parquet:PATH or any of: uncanny list data; a .parquet or .npz file; a folder of images; or a run "
            "folder, whose kept images are scored."
        ),
    ] = "digits",
    model: choices.StoredModel = None,
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    limit: options.Limit = None,
    skip: choices.Skip = 0,
    top: Annotated[int, typer.Option(help="Most suspicious images to show.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="Parquet file with a row for each image.", show_default=False)
    ] = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score images: the share of clean images at least as suspicious (p-value), and whether that is a flag."""
    from uncannyvalley.checks import check_count

    check_count("--top", top, 0)
    name = given_name(model, model_arg, weights)
    found, _network = open_detector(detector, name, device=device, batch_size=batch_size)
    source = read_images(images, limit=limit, skip=skip)
    check_shape(found, source.x, images)
    table = score_table(found, source, quiet=json)
    if out is not None:
        _write(
            table,
            out,
            {"detector": detector, "images": images, "fpr": found.fpr, "threshold": found.threshold},
        )
    questions = [one.name for one in found.recipe.questions]
    shown = most_suspicious(table, questions, top)
    counts = _counts(table, source)
    files = {} if out is None else {"scores": str(out)}
    if json:
        about = {
            "detector": detector, "images": images, "fpr": found.fpr, "threshold": found.threshold,
            "expected_if_clean": list(found.calibration.expected_flags(len(table))),
        }  # fmt: skip
        print_json({**about, "groups": counts, "most_suspicious": shown, "files": files})
        return
    _print(found, counts, shown)
    for title, path in files.items():
        console.print(f"[bold]{title:>7}[/bold]  {path}", soft_wrap=True)


def score_table(detector: "ImageDetector", source: Source, *, quiet: bool) -> "pa.Table":
    """A row for each image: its name, the predicted class, p-value, score, flag, and the nats of each question."""
    import numpy as np
    import pyarrow as pa

    parts, classes = [], []
    with progress_bars(quiet, "images") as progress:
        advance = progress("scoring", len(source.x)) if progress else (lambda done: None)
        for part in source.x.split(detector.batch_size):
            rows, predicted = detector.columns(part)
            parts.append(rows)
            classes.append(predicted)
            advance(len(part))
    rows, predicted = np.concatenate(parts), np.concatenate(classes)
    estimator = detector.estimator
    nats = estimator.surprises(rows, predicted)
    columns: dict[str, Any] = dict(source.rows) | {
        "predicted": predicted.astype(np.int32), "p_value": estimator.p_values(rows, predicted),
        "score": estimator.score_samples(rows, predicted), "flagged": estimator.predict(rows, predicted) < 0,
    }  # fmt: skip
    for i, one in enumerate(detector.recipe.questions):
        columns[one.name] = nats[:, i]
    table = pa.table(columns)
    units = {"p_value": "1", "score": "nats"} | {one.name: "nats" for one in detector.recipe.questions}
    fields = [
        one.with_metadata({"unit": units[one.name]}) if one.name in units else one for one in table.schema
    ]
    return table.cast(pa.schema(fields))


def most_suspicious(table: "pa.Table", questions: list[str], top: int) -> list[dict[str, Any]]:
    """The rows of lowest score, each with the question that added most to its suspicion."""
    rows = table.sort_by("score").slice(0, top).to_pylist()
    for row in rows:
        row["question"] = max(questions, key=lambda name: row[name])
    return rows


def _counts(table: "pa.Table", source: Source) -> list[dict[str, Any]]:
    flagged = table["flagged"].to_numpy()
    rows = []
    for name, members in {"all": list(range(len(flagged))), **source.groups}.items():
        count = int(flagged[members].sum())
        low, high = interval_of(count, len(members))
        rows.append(
            {"group": name, "images": len(members), "flagged": count, "share": count / max(1, len(members)), "interval": [low, high]}
        )  # fmt: skip
    return rows


def _print(detector: "ImageDetector", counts: list[dict[str, Any]], shown: list[dict[str, Any]]) -> None:
    cells = [
        [one["group"], str(one["images"]), str(one["flagged"]), share(one["flagged"], one["images"])]
        for one in counts
    ]
    title = f"Flagged (promised: {100 * detector.fpr:.3g} % of clean images)"
    print_table(title, ["images", "count", "flagged", "share [95 % interval]"], cells)
    images = counts[0]["images"]
    least, most = detector.calibration.expected_flags(images)
    console.print(
        f"Were all {images} clean, {least} to {most} would be flagged in 95 % of cases.",
        style="dim",
        soft_wrap=True,
    )
    console.print()
    if shown:
        named = [name for name in ("row", "file", "example", "step", "roles") if name in shown[0]]
        rows = [
            [
                *(str(one[name]) for name in named), str(one["predicted"]), f"{one['p_value']:.4f}", f"{one['score']:.2f}",
                "yes" if one["flagged"] else "no", f"{one['question']} {one[one['question']]:.1f}",
            ]
            for one in shown
        ]  # fmt: skip
        print_table(
            "Most suspicious",
            [*named, "predicted", "p-value", "score", "flagged", "loudest, nats"],
            rows,
        )
        console.print()
    console.print(promise_of(detector), style="dim", soft_wrap=True, markup=False)


def _write(table: "pa.Table", out: Path, facts: dict[str, Any]) -> None:
    from uncannyvalley.storing.files import cannot_write
    from uncannyvalley.storing.parquet import write_parquet

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    write_parquet(out, table.schema, [table], lambda: facts)
