"""All attackers against one detector, counted honestly."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.checks import check_count, check_images, check_labels
from uncannyvalley.detect.adaptive.attacker import BLACK_BOX, CHANCE, Attacker
from uncannyvalley.detect.adaptive.attackers import QUERIES
from uncannyvalley.detect.adaptive.attackers import attackers as all_attackers
from uncannyvalley.detect.adaptive.best import Best
from uncannyvalley.detect.adaptive.diagnostics import (
    doubt_of_black_box,
    doubts_of_effort,
    doubts_of_search,
    strongest_white_box,
    with_doubts_of_noise,
)
from uncannyvalley.detect.adaptive.expectation import noise_is_drawn
from uncannyvalley.detect.adaptive.meter import Spent, metered
from uncannyvalley.detect.adaptive.table import AdaptiveRow, AdaptiveTable
from uncannyvalley.detect.evaluation.rates import Rate
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError

BATCH = 128
"""Images attacked together."""

WALKING_ON_A_CPU = 8
"""Images that walk together there: a walk goes on until its last image is beaten, so small batches save steps."""

BEST = "best of all"

NO_NOISE = (
    "the detector draws no noise: it has no seed to hide, and averaging over draws is the score itself again"
)


def attack_detector(
    detector: ImageDetector,
    x: object,
    y: object,
    *,
    attackers: Mapping[str, Attacker] | None = None,
    eps: float = 8 / 255,
    norm: str = "linf",
    steps: int = 40,
    draws: int = 1,
    knows_seed: bool = True,
    restarts: int = 1,
    queries: int = QUERIES,
    clean: object = None,
    seed: int = 0,
    doubt: bool = True,
    progress: Callable[[int], None] | None = None,
) -> AdaptiveTable:
    """Attack images x (n, …) of classes y (n,) until they are misclassified and not flagged, by every attacker.

    Only images count that are right and not flagged to begin with. Success is misclassified and not flagged, at the
    threshold that the detector promised, at any point of a walk: an attacker may ask the detector for its verdict there.

    attackers   name → attacker; None: those of ``adaptive.attackers``, which eps, norm, steps, draws, knows_seed, restarts,
                queries and clean go to (of attackers that are given, the table's settings say what is said here)
    draws       of the detector's noise over which white boxes average; knows_seed: the detector's own among them
    clean       clean images that the attackers know; None: the images attacked
    doubt       attack a few images again with more effort, to see whether the result can be trusted (up to three times the
                work of the strongest attacker on 20 images)
    progress    called with a number of images that an attacker is done with: len(x) · len(attackers) in all

    Raises InputError for a detector that was not fitted, for images and labels that cannot be used, where no image is right and
    unflagged, and as ``adaptive.attackers`` does.
    """
    images = check_images(x)
    labels = check_labels(y, len(images), detector.model.classes)
    given = _Given(detector, images, labels, check_count("seed", seed, 0))
    if attackers is None:
        known = images if clean is None else clean
        attackers = all_attackers(
            detector, eps, steps, norm=norm, clean=known, draws=draws, knows_seed=knows_seed, restarts=restarts,
            queries=queries,
        )  # fmt: skip
    if not attackers:
        raise InputError("attackers is empty; leave it out for all of them")
    searches, rows = {}, []
    for name, attacker in attackers.items():
        started = time.perf_counter()
        with metered(detector.model) as spent:
            searches[name] = given.search(attacker, given.rows, progress)
        seconds = time.perf_counter() - started
        rows.append(given.row(name, attacker.sees, searches[name], spent, seconds))
        if progress is not None:
            progress(len(images) - len(given.rows))
    rows = with_doubts_of_noise(rows)
    headline = _headline(given, searches, rows, attackers, doubt)
    settings = {
        "eps": eps, "norm": norm, "steps": steps, "draws": draws, "knows_seed": knows_seed, "restarts": restarts,
        "queries": queries, "seed": seed, "budget": detector.budget, "recipe": detector.recipe.name, "fpr": detector.fpr,
        "threshold": detector.threshold, "forwards": detector.forwards, "backwards": detector.backwards,
    }  # fmt: skip
    notes = () if noise_is_drawn(detector) or (draws == 1 and knows_seed) else (NO_NOISE,)
    return AdaptiveTable(settings, len(images), given.wrong, given.flagged, tuple(rows), headline, notes)


class _Given:
    """The images given, which of them are attacked, and the searches for each."""

    def __init__(
        self, detector: ImageDetector, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], seed: int
    ) -> None:
        self.detector, self.x, self.y, self.seed = detector, x.float().cpu(), y.cpu(), seed
        right, unflagged = self._judged(self.x)
        self.wrong = int((~right).sum())
        self.flagged = int((right & ~unflagged).sum())
        self.rows = np.flatnonzero(right & unflagged)
        if not len(self.rows):
            raise InputError(
                f"none of the {len(x)} images is classified right and not flagged before any attack ({self.wrong} are "
                f"misclassified, {self.flagged} flagged); check the labels, or give more images"
            )

    def search(
        self, attacker: Attacker, rows: np.ndarray, progress: Callable[[int], None] | None = None
    ) -> Best:
        """The attacker's search on some of the images, in batches."""
        chosen = torch.from_numpy(rows)
        best = Best(self.x[chosen], self.detector.threshold)
        walks_slowly = self.detector.model.device.type == "cpu" and attacker.sees != BLACK_BOX
        for places in torch.arange(len(rows)).split(WALKING_ON_A_CPU if walks_slowly else BATCH):
            part = chosen[places]
            best.take(places, attacker(self.x[part], self.y[part], part.tolist(), self.seed))
            if progress is not None:
                progress(len(part))
        return best

    def beaten_by(self, attacker: Attacker, places: np.ndarray) -> np.ndarray:
        """Which of the attacked images at these places the attacker beats."""
        return self.search(attacker, self.rows[places]).succeeded.numpy()

    def row(self, name: str, sees: str, best: Best, spent: Spent, seconds: float) -> AdaptiveRow:
        """A search counted: its images are judged anew by the network and the detector's own ``predict``."""
        images = self.x.clone()
        images[torch.from_numpy(self.rows)] = best.images.to(images)
        right, unflagged = (one[self.rows] for one in self._judged(images))
        kept = ~right & unflagged
        succeeded = np.zeros(len(self.x), dtype=bool)
        succeeded[self.rows[kept]] = True
        fooled, beaten, count = int((~right).sum()), int(kept.sum()), len(self.rows)
        return AdaptiveRow(
            name, sees, Rate.of(fooled, count), Rate.of(fooled - beaten, fooled), Rate.of(beaten, count),
            spent.forwards / count, spent.backwards / count, seconds,
            doubts_of_search(best, best.succeeded.numpy(), kept), images, succeeded,
        )  # fmt: skip

    def _judged(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of images like those given: which are classified right, and which are not flagged."""
        columns, classes = self.detector.columns(x)
        return classes == self.y.numpy(), self.detector.estimator.predict(columns, classes) > 0


def _headline(
    given: _Given,
    searches: Mapping[str, Best],
    rows: Sequence[AdaptiveRow],
    attackers: Mapping[str, Attacker],
    doubt: bool,
) -> AdaptiveRow:
    """The best point of all searches but chance, and the doubts about the whole."""
    asked = [one for one in rows if one.sees != CHANCE] or list(rows)
    best = Best(given.x[torch.from_numpy(given.rows)], given.detector.threshold)
    for one in asked:
        found = searches[one.attacker]
        best.see(torch.arange(len(given.rows)), found.images, found.misclassified, found.suspicion)
    count = len(given.rows)
    spent = Spent(
        *(round(sum(getattr(one, name) for one in asked) * count) for name in ("forwards", "backwards"))
    )
    seconds = sum(one.seconds for one in asked)
    whole = given.row(BEST, " and ".join(dict.fromkeys(one.sees for one in asked)), best, spent, seconds)
    doubts = [one for one in whole.diagnostics if one.name == "silent success"]
    strongest = strongest_white_box(asked)
    if strongest is not None and whole.success.count < count:
        doubts += [one for one in strongest.diagnostics if one.name != "silent success"]
    if len({one.sees for one in asked}) > 1:
        doubts.append(doubt_of_black_box(asked))
    if doubt:
        doubts += doubts_of_effort(attackers, asked, best.succeeded.numpy(), given.beaten_by)
    return replace(whole, diagnostics=tuple(doubts))
