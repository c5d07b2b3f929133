"""The attackers that a detector has to face, by name.

log κ band           holds log κ among that of clean images           (knows that sharpness is watched)
early stopping       stops anywhere between the flip and far beyond   (knows that confidence is watched)
logit matching       imitates a clean image of another class in the logits
feature matching     the same in the features
orthogonal           orthogonal PGD against label and score            (Bryniarski et al. 2021, arXiv 2106.15023)
selective            whichever of the two is not met yet               (the same paper)
evading              fools the label, then holds the score below the threshold
combined loss        log loss − weight · score, best of a few weights  (Carlini and Wagner 2017, arXiv 1705.07263)
square               random search with squares on the guarded network (asks network and detector, no gradients)
noise                random steps in the same ball                     (what chance finds; no attacker)
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley import attacks, measures
from uncannyvalley.attacks.ball import check_ball
from uncannyvalley.checks import check_count, check_images
from uncannyvalley.detect.adaptive.attacker import CHANCE, Attacker, Search, Walker, probe_of
from uncannyvalley.detect.adaptive.black_box import BlackBox
from uncannyvalley.detect.adaptive.combined import combined
from uncannyvalley.detect.adaptive.expectation import MOST_DRAWS, expected_suspicion, noise_is_drawn
from uncannyvalley.detect.adaptive.imitation import MATCHED, Guides, imitation
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError
from uncannyvalley.types import Attack, PerExample

BAND = (0.05, 0.95)
"""Shares of the clean images whose log κ lies below the band and below its upper end."""

GUIDES_TRIED = 3
"""Nearest guides that an image is led to, one after the other."""

QUERIES = 500
"""Of the black box about each image, unless told otherwise."""

WEIGHTS = (0.01, 0.1, 1.0)
"""Of the score in the combined loss."""

AIM = 0.9
"""Share of the way from 0 to the threshold below which walks hold the score: some room for other draws of the noise."""

FLOOR = -1.0
"""Nats: below any suspicion."""

Maker = Callable[[Search], Attack]
Makers = dict[str, tuple[Maker, ...]]


def attackers(
    detector: ImageDetector,
    eps: float = 8 / 255,
    steps: int = 40,
    *,
    norm: str = "linf",
    clean: object,
    draws: int = 1,
    knows_seed: bool = True,
    restarts: int = 1,
    queries: int = QUERIES,
) -> dict[str, Attacker]:
    """Every attacker against a fitted detector, in a ball of radius eps around each image.

    clean       images that the attackers know to be clean: guides, and the band of log κ
    draws       of the detector's noise over which a white box averages, 1 to 4; with ``knows_seed`` the detector's own is
                the first of them
    queries     of the black box, for each image; it is left out for inputs that are no images (n, channels, height, width)

    Raises InputError for a detector that was not fitted, for settings out of range and for unusable clean images.
    """
    check_ball(norm, eps, eps)
    steps, restarts, queries = (
        check_count(name, value, 1)
        for name, value in (("steps", steps), ("restarts", restarts), ("queries", queries))
    )
    if check_count("draws", draws, 1) > MOST_DRAWS:
        raise InputError(f"draws must be a whole number from 1 to {MOST_DRAWS}, got {draws!r}")
    images = check_images(clean)
    score = expected_suspicion(detector, draws, knows_seed=knows_seed)
    guides = Guides.of(detector, images)
    ball: dict[str, Any] = {"norm": norm, "eps": eps}
    walks = (
        _blind_walks(detector, images, ball)
        | _imitations(detector, guides, ball)
        | _aware_walks(detector, score, ball)
    )
    exact = score if (knows_seed and draws == 1) or not noise_is_drawn(detector) else None
    found: dict[str, Attacker] = {
        name: Walker(detector, makers, eps, steps, restarts, exact) for name, makers in walks.items()
    }
    if len(detector.model.sample_shape) == 3:
        found["square"] = BlackBox(detector, eps, queries, norm, restarts)
    noise: tuple[Maker, ...] = (lambda search: attacks.noise(**ball, **_walking(search)),)
    found["noise"] = Walker(detector, noise, eps, steps, restarts, sees=CHANCE)
    return found


def _blind_walks(detector: ImageDetector, clean: Float[Tensor, "n ..."], ball: dict[str, Any]) -> Makers:
    """Those who know what is watched, and not how."""
    low, high = _sharpness_band(detector, clean)

    def band(search: Search) -> Attack:
        return attacks.evading(**ball, **_walking(search), low=low, high=high, relative=False)

    def early(search: Search) -> Attack:
        """Each iterate of a walk is where it would have ended with some margin as its stop."""
        return attacks.pgd(**ball, **_walking(search))

    return {"log κ band": (band,), "early stopping": (early,)}


def _sharpness_band(detector: ImageDetector, clean: Float[Tensor, "n ..."]) -> tuple[float, float]:
    model = detector.model
    sharpness = measures.available()["log_relative_sharpness"]
    found = []
    for part in clean.split(detector.batch_size):
        with torch.no_grad():
            probe = probe_of(model, model.place(part))
            found.append(sharpness(probe).double().cpu())
    values = torch.cat(found)
    low, high = (float(values.quantile(share)) for share in BAND)
    return (low, high) if low < high else (low - 1.0, high + 1.0)


def _imitations(detector: ImageDetector, guides: Guides, ball: dict[str, Any]) -> Makers:
    def towards(matched: str, rank: int) -> Maker:
        def make(search: Search) -> Attack:
            wanted = guides.nearest(detector, search.x, search.y, matched, rank)
            return imitation(**ball, **_walking(search), matched=matched, wanted=wanted)

        return make

    return {
        f"{matched.removesuffix('s')} matching": tuple(towards(matched, rank) for rank in range(GUIDES_TRIED))
        for matched in MATCHED
    }


def _aware_walks(detector: ImageDetector, score: PerExample, ball: dict[str, Any]) -> Makers:
    """Those who follow the whole score of the detector."""
    band = {"score": score, "low": FLOOR, "high": max(AIM * detector.threshold, FLOOR / 2), "relative": False}

    def towards(attack: Callable[..., Attack], **options: Any) -> Maker:
        return lambda search: attack(**ball, **_walking(search), **band, **options)

    def weighted(weight: float) -> Maker:
        return lambda search: combined(**ball, **_walking(search), score=score, weight=weight)

    return {
        "orthogonal": (towards(attacks.orthogonal, strategy="orthogonal"),),
        "selective": (towards(attacks.orthogonal, strategy="selective"),),
        "evading": (towards(attacks.evading),),
        "combined loss": tuple(weighted(weight) for weight in WEIGHTS),
    }


def _walking(search: Search) -> dict[str, Any]:
    return {"step_size": search.step_size, "random_start": search.random_start}
