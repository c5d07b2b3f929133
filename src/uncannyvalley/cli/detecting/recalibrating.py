"""``uncanny detect recalibrate``: a threshold for one's own unlabelled traffic."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncannyvalley.cli import options
from uncannyvalley.cli.detecting import choices
from uncannyvalley.cli.detecting.fitting import counted_forwards, open_place, save
from uncannyvalley.cli.detecting.networks import check_shape, given_name, open_detector
from uncannyvalley.cli.detecting.promise import about, promise_of, share
from uncannyvalley.cli.printing import console, print_json

if TYPE_CHECKING:
    import numpy as np

    from uncannyvalley.detect.image_detector import ImageDetector

BEFORE = "before it was recalibrated: "
"""Begins the notes that speak of another threshold."""


def recalibrate(
    detector: choices.DetectorFile,
    images: Annotated[
        str,
        typer.Argument(
            help="Your own unlabelled images, which the detector has not seen: as for uncanny detect score.",
            show_default=False,
        ),
    ],
    contamination: Annotated[
        float,
        typer.Option(
            help="Largest share of these images that may not be clean, such as 0.01; 0 if all are.",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option(help="File of the new detector.", show_default=False)],
    model: choices.StoredModel = None,
    model_arg: options.ModelArg = [],  # noqa: B006 (typer reads it)
    weights: options.Weights = None,
    limit: options.Limit = None,
    skip: choices.Skip = 0,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    json: options.Json = False,
) -> None:
    """Fix the threshold anew on your own traffic, of which at most the share CONTAMINATION is not clean.

    The false-positive rate is then promised for clean images like these. What was learned of clean images stays as it was;
    the file that is read is not changed.
    """
    import numpy as np

    from uncannyvalley.cli.detecting.sources import read_images
    from uncannyvalley.detect.conformal import Calibration
    from uncannyvalley.detect.saving import about_detector

    place = open_place(out, overwrite)
    name = given_name(model, model_arg, weights)
    found, _network = open_detector(detector, name, device=device, batch_size=batch_size)
    x = read_images(images, limit=limit, skip=skip).x
    check_shape(found, x, images)
    Calibration.of(np.arange(float(len(x))), found.fpr, contamination)  # refuses before anything is read
    before, images_before = found.threshold, len(found.calibration.scores)
    with counted_forwards(found.model, len(x) * found.forwards, quiet=json, name="scoring"):
        found.recalibrate(x, contamination)
    found.notes = [
        f"recalibrated on {len(x)} images of {images}, of which at most {100 * contamination:.3g} % are not clean",
        *(f"{BEFORE}{note.removeprefix(BEFORE)}" for note in found.notes),
    ]
    given = None if name is None else name.text
    save(found, place, given or about_detector(detector).model.name)
    scores = found.calibration.scores
    flagged = {"before": int((scores > before).sum()), "now": int((scores > found.threshold).sum())}
    if json:
        change = {"threshold_before": before, "calibration_images_before": images_before, "flagged": flagged}
        print_json({"detector": out, "from": detector, "images": images, **change, **about(found)})
        return
    _print(found, before, flagged, scores)
    console.print(f"[bold]detector[/bold]  {out}", soft_wrap=True)


def _print(
    detector: "ImageDetector", before: float, flagged: dict[str, int], scores: "np.ndarray[Any, Any]"
) -> None:
    console.print(
        f"Suspicion above which an image is flagged: {detector.threshold:.4g} nats, before {before:.4g}. "
        f"Of these {len(scores)} images {share(flagged['now'], len(scores))} are flagged, before {share(flagged['before'], len(scores))}.",
        soft_wrap=True,
        markup=False,
    )
    console.print()
    console.print(promise_of(detector), soft_wrap=True, markup=False)
    if detector.calibration.contamination:
        console.print(
            "- the threshold lies as high as if all images that are not clean were among the highest scores: detection pays for it",
            style="dim",
            soft_wrap=True,
            markup=False,
        )
    console.print()
