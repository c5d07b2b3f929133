"""What the study prints: one line a detector, one line an attack, gains of one detector over another."""

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from detection.attacked import BATCH, SEED
from detection.bench import FPR, Bench, Scores
from detection.detectors import WHOLE
from detection.judging import SPLITS, Judged, gain
from uncannyvalley import __version__
from uncannyvalley.detect.evaluation.roc import Interval

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "foolbox", "pyautoattack")

GAINS = (
    *((WHOLE, other) for other in ("gini", "sharpness", "noise_log_odds", "all_jointly", "all_summed")),
    ("budget 1", "gini"),
    *((WHOLE, f"{which} of {what}") for which in ("support", "both") for what in ("margin", "log κ")),
    ("drift", "margin_drift"),
    ("drift", "sharpness_drift"),
    (WHOLE, "copies alone"),
)
"""Which detector is held against which."""


def provenance() -> None:
    """What the numbers were made with."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(f"uncannyvalley {__version__}, Python {platform.python_version()}, {versions}")
    threads = torch.get_num_threads()
    print(
        f"{_processor()}, {threads} thread; attacks, noise and splits from seed {SEED}, {BATCH} images at a time"
    )
    print(LEGEND)


def _processor() -> str:
    """The processor's name, where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


LEGEND = f"""
Only images count that are classified right when clean and wrong when attacked.
false positives  of clean test images at the promised threshold; naive: had training images set it; wrong: of misclassified ones
splits kept      share of {SPLITS} random halvings of all test images whose realised rate is at most {FPR:.0%} plus sampling slack,
                 the upper end of a Beta-binomial interval of 95 %
TPR fixed        at the threshold that calibration images fixed for {FPR:.0%}
TPR at 5 %       at the threshold that {FPR:.0%} of the right test images themselves pass: it compares detectors at equal rates
AUROC            against right test images"""

HEADER = (
    f"{'':20}|{'false positives':^35}|{'splits':^7}|{'TPR worst':^14}|{'TPR mean':^14}|{'AUROC':^14}|\n"
    f"{'':20}|{'all':>7}{'[95 %]':>14}{'wrong':>7}{'naive':>7}|{'kept':^7}"
    + "|"
    + "|".join([f"{'fixed':>7}{'at 5 %':>7}"] * 2)
    + f"|{'mean':>7}{'least':>7}| worst attack"
)


def summary(title: str, found: Iterable[Judged]) -> None:
    """One line for each detector. Fixed: at the promised threshold; at 5 %: of the right test images themselves."""
    print(f"\n{title}\n{HEADER}")
    for one in found:
        fixed, equal = one.flagged("promised"), one.flagged("empirical")
        print(
            f"{one.name:20}|{one.every.value:>7.3f}{f'{one.every.low:.3f}–{one.every.high:.3f}':>14}"
            f"{one.wrong.value:>7.3f}{one.naive:>7.3f}|{one.splits[0]:>7.1%}"
            f"|{min(fixed):>7.3f}{min(equal):>7.3f}|{np.mean(fixed):>7.3f}{np.mean(equal):>7.3f}"
            f"|{np.mean(one.areas):>7.4f}{min(one.areas):>7.4f}| {one.worst}",
            flush=True,
        )


def by_attack(found: Sequence[Judged]) -> None:
    """One line for each attack: TPR at the promised threshold of each detector, then more of the last."""
    last = found[-1]
    print(
        f"\nTPR at the promised threshold, attack by attack; more of {last.name}\n{'attack':14}{'images':>7}"
        + "".join(f"{one.name:>11}" for one in found)
        + f"   {'[95 %]':15}{'at 1 %':>7}{'at 5 %':>7}  AUROC [95 %]"
    )
    for attack, one in last.attacks.items():
        at_1 = "–" if one.promised_1 is None else f"{one.promised_1.value:.3f}"
        cells = "".join(f"{each.attacks[attack].promised.value:>11.3f}" for each in found)
        print(
            f"{attack:14}{one.counted:>7}{cells}   {f'{one.promised.low:.3f}–{one.promised.high:.3f}':15}"
            f"{at_1:>7}{one.empirical.value:>7.3f}  {one.auroc}",
            flush=True,
        )


def gains(scores: Mapping[str, Scores], bench: Bench) -> dict[str, Interval]:
    """Gains in mean AUROC over attacks, for the pairs whose scores are there."""
    found = {}
    print("\ngain in mean AUROC over attacks [95 %, images drawn together]")
    for first, second in GAINS:
        if first in scores and second in scores:
            found[f"{first} over {second}"] = one = gain(scores[first], scores[second], bench)
            print(
                f"{first:10} over {second:20}{one.value:>+8.4f} [{one.low:+.4f}, {one.high:+.4f}]", flush=True
            )
    return found
