"""A monitor of a detector's scores in production: has clean traffic changed, and is the promised rate kept?"""

import json
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uncannyvalley.checks import check_count
from uncannyvalley.detect.conformal import check_fpr
from uncannyvalley.detect.evaluation.rates import clopper_pearson
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.serving.martingale import Martingale
from uncannyvalley.detect.serving.ranks import Ranks, is_score
from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import write_text
from uncannyvalley.storing.places import place_of

FORMAT = 1

FEWEST_REMEMBERED = 20
"""Clean scores below which a first rank says too little."""


@dataclass(frozen=True)
class LiveRate:
    """Share of flagged images among the last ones, with its Clopper-Pearson interval at 95 %, beside the promise.

    The interval holds at one moment; who looks a hundred times will see it miss about five times.
    """

    images: int
    flagged: int
    low: float
    high: float
    promised: float

    @classmethod
    def of(cls, flagged: int, images: int, promised: float) -> "LiveRate":
        return cls(images, flagged, *clopper_pearson(flagged, images), promised)

    @property
    def share(self) -> float:
        return self.flagged / self.images if self.images else float("nan")

    @property
    def is_above_promise(self) -> bool:
        return self.low > self.promised


class Monitor:
    """Watches the scores of a detector, high = suspicious, one after the other.

    calibration  clean scores that the stream is compared with, such as ``detector.calibration.scores``: none, and the
                 stream is compared with its own past alone
    fpr          the promised rate of flags
    delta        the alarm's false-alarm rate: the probability that it *ever* rings while calibration and stream are
                 exchangeable (clean images from one distribution), over any length of time, is at most delta
    window       how many images the live rates look back
    seed         of the draws that break ties

    Each new score gets its smoothed rank among all scores so far, p = (#above + U (#ties + 1))/(n + 1): exactly uniform and
    independent of the earlier ones under exchangeability, whatever the score. A ``Martingale`` bets against that; the alarm
    rings when its wealth reaches 1/delta, and stays on until ``restart``. A steady share of adversarial images is drift too: the
    alarm says *that* the stream changed, ``drift`` which way. Feed scores of all images, flagged or not. One detector only: after
    a recalibration, which moves no score, go on; after a new fit begin anew. Safe to call from several threads.

    Example
    -------
    >>> monitor = Monitor(np.random.default_rng(0).normal(size=500), delta=0.01)
    >>> clean = monitor.extend(np.random.default_rng(1).normal(size=500))
    >>> monitor.alarm
    False
    >>> moved = monitor.extend(np.random.default_rng(2).normal(1.0, size=200))
    >>> monitor.alarm, monitor.drift
    (True, 'scores rise')
    """

    def __init__(
        self,
        calibration: Iterable[float] = (),
        *,
        fpr: float = 0.05,
        delta: float = 0.01,
        window: int = 1000,
        seed: int = 0,
    ) -> None:
        self.fpr, self.delta = check_fpr(fpr), _check_delta(delta)
        self.window = check_count("window", window, 1)
        self._draw = np.random.default_rng(check_count("seed", seed, 0))
        self._ranks = Ranks()
        for score in calibration:
            self._ranks.add(_checked(score))
        self.calibration_rows = self._ranks.total
        self._martingale = Martingale()
        self._flags: deque[bool] = deque(maxlen=self.window)
        self._clean_flags: deque[bool] = deque(maxlen=self.window)
        self.rang_at: int | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls, detector: ImageDetector, *, delta: float = 0.01, window: int = 1000, seed: int = 0
    ) -> "Monitor":
        """A monitor that starts from a detector's calibration scores and its promise."""
        scores = detector.calibration.scores.tolist()
        return cls(scores, fpr=detector.fpr, delta=delta, window=window, seed=seed)

    def update(self, score: float, flagged: bool | None = None, *, clean: bool = False) -> float:
        """Take in one score, in O(log n); gives its online p-value.

        ``flagged``: whether the detector flagged it, for the live rates; ``clean``: somebody knows that it was clean.
        Raises InputError for NaN.
        """
        score = _checked(score)
        with self._lock:
            above, ties = self._ranks.above_and_ties(score)
            p = (above + (1 - self._draw.random()) * (ties + 1)) / (self._ranks.total + 1)
            self._ranks.add(score)
            if self._ranks.total > FEWEST_REMEMBERED:
                self._bet(p)
            if flagged is not None:
                self._flags.append(bool(flagged))
                if clean:
                    self._clean_flags.append(bool(flagged))
        return p

    def extend(self, scores: Iterable[float], flagged: Iterable[bool] | None = None) -> list[float]:
        """``update`` for several, in their order."""
        if flagged is None:
            return [self.update(score) for score in scores]
        return [self.update(one, flag) for one, flag in zip(scores, flagged, strict=True)]

    @property
    def seen(self) -> int:
        """Scores of the stream so far, calibration not included."""
        return self._ranks.total - self.calibration_rows

    @property
    def alarm(self) -> bool:
        return self.rang_at is not None

    @property
    def log_wealth(self) -> float:
        """Evidence for drift in nats; the alarm rings at log 1/delta."""
        return self._martingale.log_wealth

    @property
    def drift(self) -> str | None:
        """Which way the scores moved, once the alarm rang."""
        return self._martingale.leading if self.alarm else None

    @property
    def flag_rate(self) -> LiveRate:
        """Of the last ``window`` images: false positives and true ones together."""
        return self._rate(self._flags)

    @property
    def false_positive_rate(self) -> LiveRate:
        """Of the last ``window`` images that somebody knew to be clean."""
        return self._rate(self._clean_flags)

    def restart(self) -> None:
        """Turn the alarm off and bet anew, against the same past and with a probability of at most delta again."""
        with self._lock:
            self._martingale, self.rang_at = Martingale(), None

    def state(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        with self._lock:
            return {
                "format": FORMAT,
                "fpr": self.fpr,
                "delta": self.delta,
                "window": self.window,
                "draw": self._draw.bit_generator.state,
                "cells": sorted(self._ranks.counts().items()),
                "calibration_rows": self.calibration_rows,
                "seen_by_martingale": self._martingale.seen,
                "log_at_stake": self._martingale.log_at_stake.clip(-1e300).tolist(),
                "flags": [int(one) for one in self._flags],
                "clean_flags": [int(one) for one in self._clean_flags],
                "rang_at": self.rang_at,
            }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Monitor":
        """The monitor of a ``state``, which goes on as if it had never stopped."""
        try:
            if state["format"] != FORMAT:
                raise InputError(
                    f"the monitor's state has format {state['format']}, this version reads {FORMAT}"
                )
            found = cls(fpr=state["fpr"], delta=state["delta"], window=state["window"])
            found._draw.bit_generator.state = state["draw"]
            found._ranks = Ranks(dict(state["cells"]))
            found.calibration_rows, found.rang_at = state["calibration_rows"], state["rang_at"]
            found._martingale.seen = state["seen_by_martingale"]
            found._martingale.log_at_stake = np.array(state["log_at_stake"])
            found._flags.extend(map(bool, state["flags"]))
            found._clean_flags.extend(map(bool, state["clean_flags"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no state of a monitor: {error!r}") from error
        return found

    def save(self, path: str | Path) -> None:
        """``state`` as a JSON file, whole or not at all."""
        write_text(place_of(str(path)), json.dumps(self.state()))

    @classmethod
    def load(cls, path: str | Path) -> "Monitor":
        """The monitor of a file; InputError where it cannot be read."""
        try:
            state = json.loads(place_of(str(path)).read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no saved monitor: {error}") from error
        return cls.restored(state)

    def _bet(self, p: float) -> None:
        wealth = self._martingale.update(p)
        if self.rang_at is None and wealth >= -np.log(self.delta):
            self.rang_at = self.seen

    def _rate(self, flags: deque[bool]) -> LiveRate:
        with self._lock:
            return LiveRate.of(sum(flags), len(flags), self.fpr)


def _checked(score: object) -> float:
    score = score.item() if isinstance(score, np.generic) else score
    if not is_score(score):
        raise InputError(f"a monitor takes one number at a time, and no NaN; got {score!r}")
    return float(score)  # type: ignore[arg-type]


def _check_delta(delta: object) -> float:
    if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0 < delta < 1:
        raise InputError(f"delta must be a false-alarm rate between 0 and 1, such as 0.01; got {delta!r}")
    return float(delta)
