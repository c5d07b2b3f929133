"""``uncanny detect fit``: a detector of pushed images from clean ones alone."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.detecting.networks import NetworkName, load_network
from uncannyvalley.cli.detecting.promise import about, cost, promise_of
from uncannyvalley.cli.printing import console, print_json, print_table, progress_bars
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from uncannyvalley.detect.image_detector import ImageDetector
    from uncannyvalley.splitting import SplitModel
    from uncannyvalley.storing.places import Place

Calibration = Annotated[
    str | None,
    typer.Option(
        help="Clean images for the threshold, which the network was not trained on; half of --data if left out.",
        show_default=False,
    ),
]
CalibrationLimit = Annotated[
    int | None, typer.Option(help="Use only the first so many calibration images.", show_default=False)
]


def fit(
    out: Annotated[
        str, typer.Option(help="File of the detector, such as mine.detector.", show_default=False)
    ],
    model: options.Model = "demo",
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    data: options.Data = "digits",
    limit: options.Limit = None,
    calibration: Calibration = None,
    calibration_limit: CalibrationLimit = None,
    fpr: Annotated[float, typer.Option(help="Share of clean images that may be flagged.")] = 0.05,
    budget: Annotated[int, typer.Option(help="Forwards a decision, the network's own included.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the detector's noise, and of the split of --data.")] = 0,
    batch_size: options.BatchSize = None,
    head: options.HeadName = None,
    device: options.Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    json: options.Json = False,
) -> None:
    """Fit a detector to clean images; labels are not used, and no attack is seen.

    The threshold promises its false-positive rate for images that the network was not trained on: take --data from the
    training images if you like, but never --calibration.
    """
    from uncannyvalley.detect.image_detector import ImageDetector

    place = open_place(out, overwrite)
    if calibration is None and calibration_limit is not None:
        raise InputError("--calibration-limit goes with --calibration; --limit is that of --data")
    clean = _clean(data, limit)
    held = None if calibration is None else _clean(calibration, calibration_limit)
    network = load_network(
        NetworkName(model, options.pairs(model_arg), weights), clean[:8], head=head, device=device
    )
    detector = ImageDetector(network.model, fpr=fpr, budget=budget, seed=seed)
    if batch_size is not None:
        from uncannyvalley.checks import check_count

        detector.batch_size = check_count("batch_size", batch_size, 1)
    count = len(clean) + (0 if held is None else len(held))
    with counted_forwards(network.model, count * budget, quiet=json):
        detector.fit(clean, held)
    save(detector, place, network.name.text)
    if json:
        print_json(
            {"detector": out, "model": network.name.text, "data": data, "calibration": calibration}
            | about(detector)
        )
        return
    _print(detector, out)


@contextmanager
def counted_forwards(
    model: "SplitModel", total: int, *, quiet: bool, name: str = "fitting"
) -> Iterator[Callable[[int], None]]:
    """A bar that counts the images that pass through the network, up to ``total``."""
    with progress_bars(quiet, "forwards") as progress:
        left = total
        advance = progress(name, total) if progress else (lambda done: None)

        def see(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal left
            done = min(left, len(inputs[0]))
            left -= done
            advance(done)

        hook = model.module.register_forward_hook(see)
        try:
            yield advance
        finally:
            hook.remove()
        advance(left)  # changes that the images do not allow are not made


def _clean(name: str, limit: int | None) -> Any:
    """Clean images by name, as floats in [0, 1]."""
    from uncannyvalley.cli.detecting.sources import read_images

    return read_images(name, limit=limit).x


def open_place(out: str, overwrite: bool) -> "Place":
    """Where a detector will be written; InputError where a file is that may not be replaced."""
    from uncannyvalley.storing.places import place_of

    place = place_of(out)
    if place.exists() and not overwrite:
        raise InputError(f"{out} is there already; choose another file, or --overwrite")
    return place


def save(detector: "ImageDetector", place: "Place", name: str) -> None:
    """The detector's file, whole or not at all, in a folder that is made where it is missing."""
    from pathlib import Path

    from uncannyvalley.storing.files import cannot_write

    if isinstance(place, Path):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(place, error) from error
    detector.save(str(place), model_name=name)


def _print(detector: "ImageDetector", out: str) -> None:
    recipe = detector.recipe
    rows = [
        [
            one.name, one.side, f"{one.weight:g}", "–" if one.limit is None else f"{one.limit:g} nats", _words(one.columns),
            _words(one.given),
        ]
        for one in recipe.questions
    ]  # fmt: skip
    header = ["question", "suspicious", "weight", "limit", "columns", "given"]
    if not any(one.given for one in recipe.questions):
        header, rows = header[:-1], [row[:-1] for row in rows]
    title = f"What the detector asks ({recipe.name}, {cost(detector)})"
    print_table(title, header, rows, left=len(header))
    console.print()
    console.print(promise_of(detector), soft_wrap=True, markup=False)
    for note in detector.notes:
        console.print(f"- {note}", style="dim", soft_wrap=True, markup=False)
    console.print()
    console.print(f"[bold]detector[/bold]  {out}", soft_wrap=True)


def _words(columns: Iterable[str]) -> str:
    """Names of columns with room to be broken into lines."""
    return "; ".join(one.replace(",", ", ") for one in columns) or "–"
