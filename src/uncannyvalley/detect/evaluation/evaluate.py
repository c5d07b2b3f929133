"""Detectors judged on held-out images: every attack, every shift, every control, and the worst of them as the headline."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from uncannyvalley.checks import check_images
from uncannyvalley.detect.baselines import BASELINES, TOGETHER
from uncannyvalley.detect.evaluation.cost import TURNS, Cost, cost, timed_images
from uncannyvalley.detect.evaluation.judgement import (
    Found,
    attack_outcome,
    by_class,
    contrasts,
    flagged_rows,
    flags,
    safe_rows,
    supervised,
)
from uncannyvalley.detect.evaluation.outcome import FEWEST_COUNTED, DetectorOutcome, Evaluation
from uncannyvalley.detect.evaluation.progress import Progress, started
from uncannyvalley.detect.evaluation.rates import Rate, precision
from uncannyvalley.detect.evaluation.readings import Readers, labels_of
from uncannyvalley.detect.evaluation.tramer import check_claims, implied
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError, unknown_name

COMPARED_WITH = ("gini", *TOGETHER)
"""Detectors over which gains are given, where they are among those evaluated."""


def evaluate(
    detectors: Mapping[str, ImageDetector],
    x: object,
    y: object,
    attacks: Mapping[str, Tensor],
    *,
    shifts: Mapping[str, Tensor] = {},
    controls: Mapping[str, Tensor] = {},
    prevalence: float = 0.01,
    seed: int = 0,
    progress: Progress | None = None,
    judged: Sequence[str] | None = None,
    eps: Mapping[str, float] = {},
    known: Mapping[float, float] | None = None,
    turns: int = TURNS,
) -> Evaluation:
    """Judge fitted detectors of one network on images (n, …) that none of them was fitted or calibrated on.

    y           true classes
    attacks     name → attacked images, one row for each row of x; adaptive attackers' images are attacks like any other
    shifts      name → benign changes of the images: noise, blur, brightness, JPEG; one row for each row of x
    controls    name → images pushed without being misclassified (the assist), which contrasts compare attacks with
    prevalence  share of images that is adversarial where precision is stated
    progress    told how far reading, comparing and timing are
    judged      detectors that get contrasts, the supervised variant and a timing; None: those that are no baselines by name
    eps, known  radius of attacks, and radius → best robust accuracy known in that norm, for Tramèr's check
    turns       of the timing; 0 measures no time

    Each image is looked at once for all detectors of one network. Raises InputError for detectors that are not fitted or
    belong to different networks, and for sets of another length than x, before anything is read.
    """
    chosen = _judged(detectors, judged, prevalence)
    labels = labels_of(x, y)
    check_claims(eps, attacks, known)
    found = _read(detectors, x, labels, attacks, shifts, controls, progress)
    costs = _costs(detectors, chosen, x, turns, progress)
    compared_with = [one for one in COMPARED_WITH if one in detectors]
    compared = started(progress, "comparing", 2 * len(chosen) * len(attacks) * len(labels))
    outcomes = {}
    for name, detector in detectors.items():
        safe = {which: safe_rows(found.attacks[which], name, detector) for which in attacks}
        accepted = found.clean.right & ~flagged_rows(found.clean, name, detector)
        is_chosen = name in chosen
        outcomes[name] = DetectorOutcome(
            fpr=detector.fpr,
            threshold=detector.threshold,
            cost=costs[name],
            clean=flags(found.clean, name, detector),
            by_class=by_class(found, name, detector),
            shifts={which: flags(one, name, detector) for which, one in found.shifts.items()},
            controls={which: flags(one, name, detector) for which, one in found.controls.items()},
            right_and_accepted=Rate.where(accepted),
            attacks={which: attack_outcome(found, which, name, detector, prevalence) for which in attacks},
            contrasts=contrasts(found, name, compared_with, seed, compared) if is_chosen else {},
            seen_unseen=supervised(found, name, detector.fpr, seed, compared) if is_chosen else None,
            claims=tuple(implied(accepted, safe, eps, known)),
        )
    right = int(found.clean.right.sum())
    return Evaluation(len(labels), right, prevalence, seed, outcomes, _notes(found, detectors))


def _judged(
    detectors: Mapping[str, ImageDetector], judged: Sequence[str] | None, prevalence: float
) -> list[str]:
    """Names of the detectors that get more than numbers; refuses what cannot be judged before anything is read."""
    if not detectors:
        raise InputError("evaluate needs at least one fitted detector, by name")
    for detector in detectors.values():
        _ = detector.estimator  # refuses one that is not fitted
    for name in judged or ():
        if name not in detectors:
            raise unknown_name("detector", name, detectors)
    precision(Rate.of(1, 1), Rate.of(0, 1), prevalence)
    return [name for name in detectors if name not in BASELINES] if judged is None else list(judged)


def _read(
    detectors: Mapping[str, ImageDetector],
    x: object,
    labels: Int[np.ndarray, "n"],
    attacks: Mapping[str, Tensor],
    shifts: Mapping[str, Tensor],
    controls: Mapping[str, Tensor],
    progress: Progress | None,
) -> Found:
    """All image sets, the clean one first; refuses sets of another length before any is read."""
    kinds = {"attack": attacks, "shift": shifts, "control": controls}
    for kind, group in kinds.items():
        for name, one in group.items():
            if len(one) != len(labels):
                raise InputError(
                    f"{kind} {name} has {len(one)} images, x has {len(labels)}; give one row for each row of x, in its order"
                )
    readers = Readers(detectors)
    advance = started(progress, "reading", readers.looks(1 + sum(map(len, kinds.values())), len(labels)))
    clean = readers.read("x", x, labels, advance)
    if not clean.right.any():
        raise InputError(
            "the network classifies none of the images right; check the label order and the range of x"
        )
    found = {
        kind: {name: readers.read(f"{kind} {name}", one, labels, advance) for name, one in group.items()}
        for kind, group in kinds.items()
    }
    return Found(clean, labels, found["attack"], found["shift"], found["control"])


def _costs(
    detectors: Mapping[str, ImageDetector],
    chosen: Sequence[str],
    x: object,
    turns: int,
    progress: Progress | None,
) -> dict[str, Cost]:
    """Passes of all detectors, and times of those chosen."""
    timed = {name: turns if name in chosen else 0 for name in detectors}
    images = check_images(x)
    total = sum(timed_images(detectors[name], turns=count) for name, count in timed.items())
    advance = started(progress if total else None, "timing", total)
    return {
        name: cost(detectors[name], images, turns=count, advance=advance) for name, count in timed.items()
    }


def _notes(found: Found, detectors: Mapping[str, ImageDetector]) -> tuple[str, ...]:
    few = [name for name in found.attacks if found.counted(name).sum() < FEWEST_COUNTED]
    notes = [
        f"{name} got {int(found.counted(name).sum())} images misclassified, fewer than {FEWEST_COUNTED}: it does not enter the headline"
        for name in few
    ]
    return (*notes, *(f"{name}: {note}" for name, one in detectors.items() for note in one.notes))
