"""Claim 1: sharpness rises until the label flips, then falls to a flat valley while the label stays wrong."""

from pathlib import Path

import numpy as np

from claims import pictures
from claims.verdicts import Criterion, Outcome, share
from claims.walks import DOUBLED, MOST, Pattern, World, changes, pattern
from uncannyvalley import attacks
from uncannyvalley.analysis.summary import interval

NETWORK, EPS, STEPS, STEP = "cifar10_resnet20", 8 / 255, 40, 0.5 / 255
"""A standard network, the usual radius, and steps of a sixteenth of it."""

RISES = Criterion("flipped images whose κ has doubled by the flip", "above", MOST, ".0%")
PEAKS = Criterion("flipped images whose largest κ is at the flip, give or take a step", "above", MOST, ".0%")
FALLS = Criterion("flipped images that end at less than half the clean κ, label wrong", "above", MOST, ".0%")
WHOLE = Criterion("flipped images that do both", "above", MOST, ".0%")
NOT_BY_CHANCE = Criterion("images that do both on the noise walk", "below", MOST, ".0%", counts=False)
OWN_TO_ATTACKS = Criterion(
    "PGD's fall − assist's fall of the same image, nats, median", "above", 0.0, ".1f", counts=False
)


def measure(world: World) -> Outcome:
    """PGD and both controls on one network."""
    network, eps = subject(world)
    recorded = {
        name: world.walk(network, make(eps=eps, step_size=eps / 16), STEPS)
        for name, make in (("PGD", attacks.pgd), ("noise", attacks.noise), ("assist", attacks.assist))
    }
    found = {name: pattern(one) for name, one in recorded.items()}
    pgd, assist = found["PGD"], found["assist"]
    parts = [
        RISES.judge(share(pgd.doubles[pgd.flipped])),
        PEAKS.judge(share(at_flip(pgd))),
        FALLS.judge(share(pgd.valley[pgd.flipped])),
        WHOLE.judge(share(pgd.whole[pgd.flipped])),
        NOT_BY_CHANCE.judge(share(found["noise"].whole)),
        OWN_TO_ATTACKS.judge(interval(pgd.fall - assist.fall, np.median)),
    ]
    seen = {name: changes(one) for name, one in recorded.items()}

    def draw(path: Path) -> None:
        figure, (left, right) = pictures.sheet(9.6, 3.3, 2)
        pictures.walks(left, seen)
        left.set_title("The walk of log κ")
        left.set_xlabel("step")
        left.set_ylabel("log κ − clean, nats (median)")
        left.legend(frameon=False, fontsize=9)
        titles = [
            "doubled by the flip",
            "peaks at the flip",
            "ends flat and wrong",
            "rises, then falls",
            "(noise) both",
        ]
        pictures.intervals(right, parts[:5], MOST, titles)
        right.set_title("Share of images")
        pictures.save(figure, path)

    short = (
        f"{parts[3].figure.value:.0%} of {int(pgd.flipped.sum())} flipped images rise, then fall; "
        f"median rise {np.median(pgd.rise):.1f}, fall {np.median(pgd.fall):.1f} nats"
    )
    assisted = f"assist, without any flip, falls by {np.median(assist.fall):.1f} nats: a fall alone is no mark of an attack"
    return Outcome(parts, short, [f"κ doubled: {DOUBLED:.2f} nats", assisted], draw)


def subject(world: World) -> tuple[str, float]:
    """The network that is walked and its radius; where things are quick, the demo's on digits."""
    return ("digits", 0.5) if world.quick else (NETWORK, EPS)


def at_flip(walked: Pattern) -> np.ndarray:
    """Flipped images whose ridge lies within one step of their flip."""
    return np.abs(walked.ridge - walked.flip)[walked.flipped] <= 1
