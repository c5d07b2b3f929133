"""What happens to an answer that a detector flags, and what when the detector itself fails."""

import logging
import math
import threading
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.serving.module import DetectorModule
from uncannyvalley.detect.serving.monitor import Monitor
from uncannyvalley.errors import InputError

REJECTED = -1
"""The class of an answer that was withheld."""

SHADOW, FLAG, REJECT = MODES = ("shadow", "flag", "reject")

OPEN, CLOSED = ON_ERROR = ("open", "closed")

SHARPNESS = "log_relative_sharpness"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """What is answered about one image.

    answer                  the class, or ``REJECTED``
    flag                    whether to distrust it, as far as the caller may know: always False in shadow mode
    is_checked              False where the detector failed
    p_value                 NaN where it failed; so are the next two
    log_relative_sharpness  log κ; NaN also from an ImageDetector whose recipe does not read it
    suspicion               nats, high = suspicious
    reason                  why the detector failed
    """

    answer: int
    flag: bool
    is_checked: bool
    p_value: float
    log_relative_sharpness: float
    suspicion: float
    reason: str = ""


class _Row(NamedTuple):
    """What the detector found for one image."""

    predicted: int
    p_value: float
    log_relative_sharpness: float
    suspicion: float
    flag: bool


class Policy:
    """A detector behind a switch: ``policy(images)`` answers for each image with a ``Decision``.

    mode      "shadow": answers stay as they are and the detector is only recorded; "flag": answers carry the flag;
              "reject": flagged images get the class −1
    on_error  for images whose detector raises, or finds NaN: "open": the answer stands, marked unchecked; "closed": −1, unchecked.
              In shadow mode answers stand in any case
    monitor   a Monitor that sees the suspicion of every checked image

    A batch on which the detector raises is asked again image by image, so that one bad image cannot switch off the checks of
    its batch; images of another shape than those fitted are unchecked. What the *network* raises is the caller's, unless its
    images are rejected anyhow, and so is InputError for what is no batch of images. ``counts`` may be read, and the policy
    called, from several threads.

    Example
    -------
    >>> policy = Policy(DetectorModule(detector), mode="reject", on_error="closed")  # doctest: +SKIP
    >>> [one.answer for one in policy(x)]                                            # doctest: +SKIP
    """

    def __init__(
        self,
        detector: DetectorModule | ImageDetector,
        *,
        mode: str = SHADOW,
        on_error: str = OPEN,
        monitor: Monitor | None = None,
    ) -> None:
        if not isinstance(detector, (DetectorModule, ImageDetector)):
            raise InputError(
                f"a policy wraps a DetectorModule or an ImageDetector, got {type(detector).__name__}"
            )
        self.detector, self.monitor = detector, monitor
        self.sample_shape = _sample_shape(detector)
        self.mode, self.on_error = _one_of("mode", mode, MODES), _one_of("on_error", on_error, ON_ERROR)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> list[Decision]:
        if not isinstance(x, Tensor) or x.dim() != 1 + len(self.sample_shape):
            came = f"a tensor {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"a policy takes a batch of images (n, {str(self.sample_shape)[1:]}, got {came}")
        found = self._ask(x)
        decisions = [self._decide(x[i], one) for i, one in enumerate(found)]
        self._count(found, decisions)
        return decisions

    @property
    def counts(self) -> dict[str, int]:
        """images, checked, unchecked, suspicious (by the detector, in any mode), flagged and rejected (as answered)."""
        names = ("images", "checked", "unchecked", "suspicious", "flagged", "rejected")
        with self._lock:
            return {name: self._counts[name] for name in names}

    def _ask(self, x: Tensor) -> list[_Row | str]:
        """A row for each image, or why there is none."""
        try:
            return list(_found(self.detector, x))
        except Exception as error:  # a detector must not take the service down, whatever it raises
            if len(x) == 1:
                return [_reason(error)]
        found: list[_Row | str] = []
        for i in range(len(x)):
            found += self._ask(x[i : i + 1])
        return found

    def _decide(self, x: Tensor, found: _Row | str) -> Decision:
        if isinstance(found, str):
            return self._unchecked(x, found)
        if not _is_finite(found):
            return self._unchecked(x, "the detector found no finite number")
        answer = REJECTED if found.flag and self.mode == REJECT else found.predicted
        shown = found.flag and self.mode != SHADOW
        return Decision(answer, shown, True, found.p_value, found.log_relative_sharpness, found.suspicion)

    def _unchecked(self, x: Tensor, reason: str) -> Decision:
        _log.warning("image not checked, fails %s: %s", self.on_error, reason)
        nan = float("nan")
        if self.on_error == CLOSED and self.mode != SHADOW:
            return Decision(REJECTED, True, False, nan, nan, nan, reason)
        return Decision(_plain_answer(self.detector, x[None]), False, False, nan, nan, nan, reason)

    def _count(self, found: list[_Row | str], decisions: list[Decision]) -> None:
        checked = [
            row for row, one in zip(found, decisions, strict=True) if one.is_checked and isinstance(row, _Row)
        ]
        with self._lock:
            self._counts.update(
                images=len(decisions),
                checked=len(checked),
                unchecked=len(decisions) - len(checked),
                suspicious=sum(row.flag for row in checked),
                flagged=sum(one.flag for one in decisions),
                rejected=sum(one.answer == REJECTED for one in decisions),
            )
        if self.monitor is not None:
            self.monitor.extend([row.suspicion for row in checked], [row.flag for row in checked])


def _found(detector: DetectorModule | ImageDetector, x: Tensor) -> list[_Row]:
    if tuple(x.shape[1:]) != _sample_shape(detector):
        raise InputError(
            f"images of shape {tuple(x.shape[1:])}, the detector knows {_sample_shape(detector)}"
        )
    columns = _by_module(detector, x) if isinstance(detector, DetectorModule) else _by_detector(detector, x)
    return [_Row(*values) for values in zip(*(one.tolist() for one in columns), strict=True)]


def _sample_shape(detector: DetectorModule | ImageDetector) -> tuple[int, ...]:
    return detector.sample_shape if isinstance(detector, DetectorModule) else detector.model.sample_shape


def _by_module(module: DetectorModule, x: Tensor) -> tuple[Tensor, ...]:
    """The fields of ``_Row``, each (n,)."""
    with torch.no_grad():
        (logits, sharpness, p_values, flags), suspicion = module.scored(x)
    return logits.argmax(dim=1), p_values, sharpness, suspicion, flags


def _by_detector(detector: ImageDetector, x: Tensor) -> tuple[np.ndarray, ...]:
    """The same by a detector, whose columns need not hold log κ."""
    rows, classes = detector.columns(x)
    suspicion = -detector.estimator.score_samples(rows, classes)
    names = detector.recipe.columns
    sharpness = np.full(len(rows), np.nan)
    if SHARPNESS in names:
        sharpness = rows[:, names.index(SHARPNESS)]
    return (
        classes,
        detector.calibration.p_values(suspicion),
        sharpness,
        suspicion,
        suspicion > detector.threshold,
    )


def _is_finite(row: _Row) -> bool:
    return math.isfinite(row.p_value) and math.isfinite(row.suspicion)


def _plain_answer(detector: DetectorModule | ImageDetector, x: Tensor) -> int:
    """The network's own class, without the detector."""
    with torch.no_grad():
        if isinstance(detector, DetectorModule):
            return int(detector.logits(x).argmax(dim=1))
        return int(detector.model.logits_of(x).argmax(dim=1))


def _reason(error: Exception) -> str:
    first_line = (str(error).strip() or "no message").split("\n")[0]
    return f"{type(error).__name__}: {first_line}"


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    return value
