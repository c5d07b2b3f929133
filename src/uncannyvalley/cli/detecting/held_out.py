"""The images of an evaluation: held-out ones, attacked, shifted and control images, and whether they were held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uncannyvalley.cli.detecting.networks import check_shape
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from uncannyvalley.cli.detecting.attack_files import AttackFiles
    from uncannyvalley.cli.detecting.attack_images import NamedAttack
    from uncannyvalley.detect.evaluation.progress import Progress
    from uncannyvalley.detect.image_detector import ImageDetector

LEAK = 0.02
"""Share of the images whose scores may be found among the calibration scores before that is called a leak."""

LOOKED_AT = 500
"""Images whose scores are looked up, evenly over all of them."""

SAME_SCORE = 1e-5
"""Relative difference of two scores of one image: other batches round differently."""


@dataclass(frozen=True)
class HeldOut:
    """Images with their classes, what was made of them elsewhere, and remarks.

    recorded, radii  attacks whose images runs kept, and the radius of those within a ball
    shifts           other forms of the same images, by name
    """

    x: "Tensor"
    y: "Tensor"
    class_names: tuple[str, ...]
    recorded: "Mapping[str, Tensor]"
    radii: Mapping[str, tuple[str, float]]
    shifts: "Mapping[str, Tensor]"
    notes: list[str]


@dataclass(frozen=True)
class ImageSets:
    """Image sets by kind, one row for each held-out image, and the radius of those attacks that have one."""

    attacks: "dict[str, Tensor]"
    shifts: "dict[str, Tensor]"
    controls: "dict[str, Tensor]"
    radii: dict[str, float]


def held_out(
    detector: "ImageDetector",
    data: str,
    *,
    skip: int,
    limit: int | None,
    runs: Sequence[str],
    shifts: Mapping[str, str],
    weights: str,
) -> HeldOut:
    """Labelled images of the detector's shape; with runs those rows that all of them kept. ``shifts``: name → data.

    weights: fingerprint of the network, which the runs should have attacked.
    """
    from uncannyvalley.cli.detecting.run_images import run_images
    from uncannyvalley.cli.detecting.sources import labelled

    x, y, names = labelled(data, detector.model.classes, limit=limit, skip=skip)
    check_shape(detector, x, data)
    others = {name: _other_form(one, x, y, limit, skip) for name, one in shifts.items()}
    if not runs:
        return HeldOut(x, y, names, {}, {}, others, [])
    kept = run_images(runs, x, skip, weights)
    others = {name: one[kept.rows] for name, one in others.items()}
    return HeldOut(x[kept.rows], y[kept.rows], names, kept.attacks, kept.radii, others, kept.notes)


def _other_form(data: str, x: "Tensor", y: "Tensor", limit: int | None, skip: int) -> "Tensor":
    """The same images from elsewhere, row by row, such as their JPEG files."""
    from uncannyvalley.cli.detecting.sources import read_images

    found = read_images(data, limit=len(x) if limit is None else limit, skip=skip)
    if found.x.shape != x.shape:
        raise InputError(
            f"--shift {data} holds images of shape {tuple(found.x.shape)} where --data has {tuple(x.shape)}: give the same images "
            "in another form, row by row"
        )
    if found.labels is not None and not bool((found.labels == y).all()):
        raise InputError(
            f"--shift {data} has other classes than --data: give the same images in another form, in the same order"
        )
    return found.x


def image_sets(
    detector: "ImageDetector",
    held: HeldOut,
    attacks: "Sequence[NamedAttack]",
    controls: "Sequence[NamedAttack]",
    norm: str | None,
    seed: int,
    files: "AttackFiles",
    progress: "Progress | None",
) -> ImageSets:
    """Attacked, shifted and control images."""
    from uncannyvalley.cli.detecting.attack_images import attack_images, radii
    from uncannyvalley.cli.detecting.shifts import shifted_images

    doubled = {one.title for one in attacks} & held.recorded.keys()
    if doubled:
        raise InputError(f"an attack and a run are both called {min(doubled)}; rename the run's folder")

    def made(named: "Sequence[NamedAttack]") -> "dict[str, Tensor]":
        return attack_images(
            named, detector.model, held.x, held.y, batch_size=detector.batch_size, files=files, progress=progress
        )  # fmt: skip

    of_runs = {title: eps for title, (ball, eps) in held.radii.items() if ball == (norm or "linf")}
    return ImageSets(
        made(attacks) | dict(held.recorded),
        shifted_images(held.x, seed) | dict(held.shifts),
        made(controls),
        radii(attacks, norm) | of_runs,
    )


def leaks(detector: "ImageDetector", held: HeldOut) -> list[str]:
    """A remark where the detector was calibrated on these images: then their scores are among its calibration scores."""
    import numpy as np

    x = held.x[:: -(-len(held.x) // LOOKED_AT)]
    scores = -detector.score_samples(x)
    tolerance = SAME_SCORE * np.maximum(1.0, np.abs(scores))
    by_chance = _found_among(detector.calibration.scores, scores + 5 * tolerance, tolerance)
    seen = _found_among(detector.calibration.scores, scores, tolerance) - by_chance
    if seen <= LEAK * len(scores):
        return []
    return [
        f"{seen} of {len(scores)} images have the very scores of calibration images: the detector was calibrated on them, and "
        "their false-positive rate shows nothing; leave them out with --skip"
    ]


def _found_among(calibration: "np.ndarray", scores: "np.ndarray", tolerance: "np.ndarray") -> int:
    """How many calibration scores are found: each counts once, as many unsuspicious images share the lowest score."""
    import numpy as np

    place = np.searchsorted(calibration, scores).clip(1, len(calibration) - 1)
    nearest = np.where(calibration[place] - scores < scores - calibration[place - 1], place, place - 1)
    close = np.abs(calibration[nearest] - scores) <= tolerance
    return len(np.unique(calibration[nearest[close]]))
