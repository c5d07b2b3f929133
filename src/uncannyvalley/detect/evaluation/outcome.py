"""What an evaluation found, as plain values; its headline is the worst attack."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uncannyvalley.detect.evaluation.cost import Cost
from uncannyvalley.detect.evaluation.rates import Precision, Rate
from uncannyvalley.detect.evaluation.roc import Interval
from uncannyvalley.detect.evaluation.strata import Contrast
from uncannyvalley.detect.evaluation.supervised import SeenUnseen
from uncannyvalley.detect.evaluation.tramer import Claim

FEWEST_COUNTED = 10
"""Successful images below which an attack is listed and does not enter the headline."""


@dataclass(frozen=True)
class AttackOutcome:
    """One attack on one detector. Only images that are classified right when clean and wrong when attacked count.

    tried              images that are classified right when clean
    counted            those of them that the attack got misclassified
    flagged            at the detector's own threshold, which was fixed before
    promised           rate → the same at the conformal threshold for that rate; None where calibration images are too few
    empirical          rate → the same at the threshold that has that rate on the held-out clean images themselves
    auroc              against held-out clean images that are classified right
    right_or_rejected  share of all attacked images, failed attacks included, that are classified right or flagged
    precision          of a flag, at the stated prevalence
    roc                false-positive rates, evenly spaced in logarithm, and the true-positive rate at each
    """

    tried: int
    counted: int
    flagged: Rate
    promised: Mapping[float, Rate | None]
    empirical: Mapping[float, Rate]
    auroc: Interval
    right_or_rejected: Rate
    precision: Precision
    roc: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Flags:
    """Shares flagged of images that are classified right, of those that are not, and of all."""

    right: Rate
    wrong: Rate
    all: Rate


@dataclass(frozen=True)
class DetectorOutcome:
    """One detector.

    clean, by_class       realised false-positive rates on held-out clean images; by true class: those classified right
    shifts, controls      the same for benign changes of the images and for control images
    right_and_accepted    share of all clean images that are classified right and not flagged
    contrasts             attack → matched contrasts; empty for detectors that are only compared with
    seen_unseen           the supervised variant on this detector's columns
    claims                what the results would imply for classification
    """

    fpr: float
    threshold: float
    cost: Cost
    clean: Flags
    by_class: Mapping[int, Rate]
    shifts: Mapping[str, Flags]
    controls: Mapping[str, Flags]
    right_and_accepted: Rate
    attacks: Mapping[str, AttackOutcome]
    contrasts: Mapping[str, tuple[Contrast, ...]]
    seen_unseen: SeenUnseen | None
    claims: tuple[Claim, ...]

    @property
    def entering(self) -> dict[str, AttackOutcome]:
        """Attacks with enough successful images for the headline."""
        return {name: one for name, one in self.attacks.items() if one.counted >= FEWEST_COUNTED}

    @property
    def worst(self) -> str | None:
        """The attack of which the smallest share is flagged at the detector's own threshold; None without any."""
        return min(self.entering, key=lambda name: self.entering[name].flagged.value, default=None)

    @property
    def headline(self) -> dict[str, Any]:
        """Worst attack with its rate, means over attacks, and the realised false-positive rate."""
        entering = self.entering.values()
        return {
            "worst_attack": self.worst,
            "worst_flagged": None if self.worst is None else self.attacks[self.worst].flagged,
            "mean_flagged": _mean([one.flagged.value for one in entering]),
            "mean_auroc": _mean([one.auroc.value for one in entering]),
            "false_positives": self.clean.right,
        }


@dataclass(frozen=True)
class Evaluation:
    """Detectors side by side on the same images.

    images, right  held-out clean images, and how many of them the network classifies right
    notes          what was left out, and why
    """

    images: int
    right: int
    prevalence: float
    seed: int
    detectors: Mapping[str, DetectorOutcome]
    notes: tuple[str, ...]

    @property
    def headline(self) -> dict[str, dict[str, Any]]:
        """Detector → its headline: the worst attack, whichever it is; adaptive attackers enter as attacks like any other."""
        return {name: one.headline for name, one in self.detectors.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``json.dumps`` takes; None for what is not finite."""
        return plain(self) | {"headline": plain(self.headline)}


def plain(value: Any) -> Any:
    """Dataclasses and mappings as dictionaries with text keys, sequences as lists, numbers that are not finite as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
