"""One detector on what was read: which rows count, what it flags of them, and how it compares with others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from uncannyvalley.detect.evaluation.outcome import AttackOutcome, Flags
from uncannyvalley.detect.evaluation.progress import Advance
from uncannyvalley.detect.evaluation.rates import (
    Rate,
    empirical_threshold,
    precision,
    promised_threshold,
)
from uncannyvalley.detect.evaluation.readings import Reading
from uncannyvalley.detect.evaluation.roc import auroc, log_roc
from uncannyvalley.detect.evaluation.strata import METHODS, Contrast, Group, contrast
from uncannyvalley.detect.evaluation.supervised import SeenUnseen, seen_unseen
from uncannyvalley.detect.image_detector import ImageDetector

RATES = (0.01, 0.05)
"""False-positive rates at which true-positive rates are given."""

NATURAL_ERRORS = "natural errors"


@dataclass(frozen=True)
class Found:
    """All readings."""

    clean: Reading
    labels: Int[np.ndarray, "n"]
    attacks: Mapping[str, Reading]
    shifts: Mapping[str, Reading]
    controls: Mapping[str, Reading]

    def counted(self, attack: str) -> Bool[np.ndarray, "n"]:
        """Rows that are classified right when clean and wrong when attacked."""
        return self.clean.right & ~self.attacks[attack].right


def flagged_rows(reading: Reading, name: str, detector: ImageDetector) -> Bool[np.ndarray, "n"]:
    """Rows that the detector of that name flags."""
    return reading.suspicion[name] > detector.threshold


def safe_rows(reading: Reading, name: str, detector: ImageDetector) -> Bool[np.ndarray, "n"]:
    """Rows that are classified right or flagged."""
    return reading.right | flagged_rows(reading, name, detector)


def flags(reading: Reading, name: str, detector: ImageDetector) -> Flags:
    """What it flags of images that are classified right, wrong, and of all."""
    flagged = flagged_rows(reading, name, detector)
    return Flags(Rate.where(flagged[reading.right]), Rate.where(flagged[~reading.right]), Rate.where(flagged))


def by_class(found: Found, name: str, detector: ImageDetector) -> dict[int, Rate]:
    """True class → what it flags of the clean images that are classified right."""
    flagged = flagged_rows(found.clean, name, detector)
    rows = {int(which): found.clean.right & (found.labels == which) for which in np.unique(found.labels)}
    return {which: Rate.where(flagged[one]) for which, one in rows.items()}


def attack_outcome(
    found: Found, attack: str, name: str, detector: ImageDetector, prevalence: float
) -> AttackOutcome:
    """What it catches of one attack."""
    counted = found.counted(attack)
    pushed = found.attacks[attack].suspicion[name][counted]
    clean = found.clean.suspicion[name][found.clean.right]
    thresholds = {rate: promised_threshold(detector.calibration, rate) for rate in RATES}
    flagged = Rate.where(pushed > detector.threshold)
    false_rates, true_rates = log_roc(clean, pushed)
    return AttackOutcome(
        tried=int(found.clean.right.sum()),
        counted=int(counted.sum()),
        flagged=flagged,
        promised={
            rate: None if one is None else Rate.where(pushed > one) for rate, one in thresholds.items()
        },
        empirical={rate: Rate.where(pushed > empirical_threshold(clean, rate)) for rate in RATES},
        auroc=auroc(clean, pushed),
        right_or_rejected=Rate.where(safe_rows(found.attacks[attack], name, detector)),
        precision=precision(flagged, Rate.where(clean > detector.threshold), prevalence),
        roc=(tuple(false_rates.tolist()), tuple(true_rates.tolist())),
    )


def contrasts(
    found: Found, name: str, compared_with: Sequence[str], seed: int, advance: Advance = lambda done: None
) -> dict[str, tuple[Contrast, ...]]:
    """Attack → its successful images against clean ones, natural errors and controls, by every method of matching.

    ``advance`` is called with the number of images after each attack.
    """
    clean = _group(found.clean)
    others = {"clean": clean.rows(found.clean.right), NATURAL_ERRORS: clean.rows(~found.clean.right)}
    for control, one in found.controls.items():
        others[control] = _group(one).rows(found.clean.right & one.right)
    rivals = [one for one in compared_with if one != name]
    contrasted = {}
    for attack, one in found.attacks.items():
        pushed = _group(one).rows(found.counted(attack))
        contrasted[attack] = tuple(
            contrast(pushed, other, name, rivals, against=against, method=method, seed=seed)
            for against, other in others.items()
            for method in METHODS
        )
        advance(len(found.labels))
    return contrasted


def _group(reading: Reading) -> Group:
    return Group(reading.suspicion, reading.matched, np.arange(len(reading)))


def supervised(
    found: Found, name: str, fpr: float, seed: int, advance: Advance = lambda done: None
) -> SeenUnseen | None:
    """The supervised variant on the detector's columns; None where the images are too few."""
    pushed = {which: (one.columns[name], found.counted(which)) for which, one in found.attacks.items()}
    learned = seen_unseen(
        found.clean.columns[name], found.clean.right, pushed, fpr=fpr, seed=seed, advance=advance
    )
    if learned is None:
        advance(len(found.labels) * len(pushed))
    return learned
