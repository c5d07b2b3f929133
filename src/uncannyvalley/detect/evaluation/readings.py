"""Every image set is looked at once: columns, scores and predicted classes are kept, images are not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from uncannyvalley.checks import check_images, check_labels
from uncannyvalley.detect.evaluation.progress import Advance
from uncannyvalley.detect.evaluation.shared_looks import Rows, onlookers
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError

MATCHED_ON = ("logit_gap", "log_norm")
"""Columns in which contrasts are matched: the margin and log |φ|."""

_MATCHED = "the numbers that contrasts are matched in"
"""No detector's name."""

SAME_CLASSES = 0.99
"""Share of images on which all detectors' networks must agree; rounding of ties may differ."""


@dataclass(frozen=True)
class Reading:
    """What was read of a set of n images.

    right      rows that the network classifies right
    suspicion  detector → (n,), high = suspicious
    columns    detector → (n, p)
    matched    (n, 2), see MATCHED_ON
    """

    right: Bool[np.ndarray, "n"]
    suspicion: Mapping[str, Float[np.ndarray, "n"]]
    columns: Mapping[str, Float[np.ndarray, "n p"]]
    matched: Float[np.ndarray, "n 2"]

    def __len__(self) -> int:
        return len(self.right)


class Readers:
    """Detectors that read image sets, each image looked at once for all of them that belong to one network and seed.

    Example
    -------
    >>> Readers({"mine": detector}).read("x", x, y).suspicion["mine"]  # doctest: +SKIP
    """

    def __init__(self, detectors: Mapping[str, ImageDetector]) -> None:
        self._detectors = detectors
        self._groups = onlookers(detectors, {_MATCHED: MATCHED_ON})

    def read(
        self, name: str, x: object, y: Int[np.ndarray, "n"], advance: Advance = lambda done: None
    ) -> Reading:
        """One image set; ``advance`` is called with the numbers of images that were looked at.

        Raises InputError unless all detectors belong to one network.
        """
        images = check_images(x)
        found: dict[str, Rows] = {}
        for group in self._groups:
            found |= group.read(images, advance)
        matched, classes = found.pop(_MATCHED)
        columns, suspicion = {}, {}
        for which, detector in self._detectors.items():
            rows, predicted = found[which]
            if (predicted == classes).mean() < SAME_CLASSES:
                raise InputError(
                    f"detector {which!r} sees other classes than {next(iter(self._detectors))!r} in {name}: they are fitted "
                    "to different networks; compare detectors of one network"
                )
            columns[which] = rows
            suspicion[which] = -detector.estimator.score_samples(rows, predicted)
        return Reading(classes == y, suspicion, columns, matched)

    def looks(self, sets: int, images: int) -> int:
        """How many images are looked at in so many sets: once for each network and seed."""
        return len(self._groups) * sets * images


def labels_of(x: object, y: object) -> Int[np.ndarray, "n"]:
    """``y`` as an array, one class for each image."""
    return check_labels(y, len(check_images(x))).cpu().numpy()
