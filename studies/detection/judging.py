"""One detector's scores → rates with intervals, what it gains over another, and what 500 other splits would have realised."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from detection.bench import FPR, Bench, Scores
from uncannyvalley.detect.conformal import Calibration
from uncannyvalley.detect.evaluation.outcome import FEWEST_COUNTED
from uncannyvalley.detect.evaluation.rates import Rate, empirical_threshold, promised_threshold
from uncannyvalley.detect.evaluation.roc import (
    Interval,
    auroc,
    percentiles,
    resampled_pairs,
    resamples,
    share_of_pairs,
    wins,
)

SPLITS = 500


@dataclass(frozen=True)
class Attacked:
    """Only images that are classified right when clean and wrong when attacked count.

    promised, promised_1  flagged at the thresholds that calibration images fixed for 5 % and 1 %
    empirical             flagged at the threshold that 5 % of the right test images themselves pass
    """

    counted: int
    promised: Rate
    promised_1: Rate | None
    empirical: Rate
    auroc: Interval


@dataclass(frozen=True)
class Judged:
    """One detector.

    every, right, wrong  realised false positives: of all test images, of those classified right, of those that are not
    naive   the same of all, had training images set the threshold
    splits  share of ``SPLITS`` random halvings of all test images that realise at most the promised rate plus slack, and
            the mean realised rate
    """

    name: str
    every: Rate
    right: Rate
    wrong: Rate
    naive: float
    splits: tuple[float, float]
    attacks: Mapping[str, Attacked]

    @property
    def entering(self) -> dict[str, Attacked]:
        """Attacks with enough successful images for a headline."""
        return {name: one for name, one in self.attacks.items() if one.counted >= FEWEST_COUNTED}

    @property
    def worst(self) -> str:
        """The attack of which least is flagged at the promised threshold."""
        return min(self.entering, key=lambda name: self.entering[name].promised.value)

    def flagged(self, threshold: str) -> list[float]:
        """Shares flagged of each attack at the ``promised`` or the ``empirical`` threshold."""
        return [getattr(one, threshold).value for one in self.entering.values()]

    @property
    def areas(self) -> list[float]:
        """AUROC of each attack."""
        return [one.auroc.value for one in self.entering.values()]


def judged(scores: Scores, bench: Bench) -> Judged:
    """Judge one detector."""
    flagged = scores.clean > scores.promised
    clean = scores.clean[bench.right]
    first = promised_threshold(scores.calibration, 0.01)
    found = {}
    for attack in bench.attacks:
        counts = bench.counted(attack)
        pushed = scores.attacks[attack][counts]
        found[attack] = Attacked(
            int(counts.sum()),
            Rate.where(pushed > scores.promised),
            None if first is None else Rate.where(pushed > first),
            Rate.where(pushed > empirical_threshold(clean, FPR)),
            auroc(clean, pushed),
        )
    return Judged(
        scores.name, Rate.where(flagged), Rate.where(flagged[bench.right]), Rate.where(flagged[~bench.right]),
        scores.naive, splits(scores.all_clean), found,
    )  # fmt: skip


def gain(first: Scores, second: Scores, bench: Bench, seed: int = 0) -> Interval:
    """Mean AUROC over attacks of ``first`` minus that of ``second``; images are drawn together, with all their attacked versions."""
    right = np.flatnonzero(bench.right)
    drawn = resamples(len(bench.right), seed)
    values, sampled = [], []
    for attack in bench.attacks:
        rows = np.flatnonzero(bench.counted(attack))
        if len(rows) < FEWEST_COUNTED:
            continue
        more = np.subtract(*(wins(one.attacks[attack][rows], one.clean[right]) for one in (first, second)))
        pairs = resampled_pairs(np.ones_like(more), drawn, rows, right)
        values.append(float(more.mean(dtype=np.float64)))
        sampled.append(share_of_pairs(resampled_pairs(more, drawn, rows, right), pairs))
    return percentiles(float(np.mean(values)), np.mean(sampled, axis=0))


def splits(scores: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Share of random halvings that keep the promise up to sampling slack, and the mean realised rate.

    Slack: the upper end of the Beta-binomial interval of 95 %, which a valid threshold passes in 2.5 % of splits at most.
    """
    draw, half = np.random.default_rng(seed), len(scores) // 2
    most = Calibration.of(scores[:half], FPR).expected_flags(len(scores) - half)[1]  # depends on counts alone
    flags = []
    for _ in range(SPLITS):
        order = draw.permutation(scores)
        flags.append(int((order[half:] > Calibration.of(order[:half], FPR).threshold).sum()))
    return float(np.mean(np.array(flags) <= most)), float(np.mean(flags) / (len(scores) - half))
