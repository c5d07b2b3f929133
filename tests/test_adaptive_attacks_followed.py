"""What attackers follow: the score itself or its mean over noise, a sum with the loss, clean images of another class."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adaptive_cases import EPS, clean, held, known, last_probe, noisy, plain, unflagged, with_seed
from uncannyvalley import attacks
from uncannyvalley.detect.adaptive import (
    Guides,
    attack_detector,
    attackers,
    combined,
    expected_suspicion,
    imitation,
)
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError
from uncannyvalley.objectives import log_loss
from uncannyvalley.probe import Prober
from uncannyvalley.types import Probe


def test_expectation_is_the_mean_over_detectors_with_other_noise() -> None:
    x, y = held(150, 160)
    probe = Prober(noisy().model, x, y)(x)
    own = -noisy().score_samples(x)
    other, third = (-with_seed(noisy(), seed).score_samples(x) for seed in (7919, 2 * 7919))
    assert np.abs(own - other).max() > 0.01  # otherwise this shows nothing
    for draws, knows_seed, expected in (
        (1, True, own),
        (2, True, (own + other) / 2),
        (1, False, other),
        (2, False, (other + third) / 2),
    ):
        score = expected_suspicion(noisy(), draws, knows_seed=knows_seed)
        assert score(probe).numpy() == pytest.approx(expected, abs=1e-3, rel=1e-3)


def test_an_attacker_who_does_not_know_the_seed_is_judged_by_the_noise_that_he_does_not_know() -> None:
    """His walk follows other noise; its verdicts must be those of the detector itself."""
    x, y = held(150, 170)
    made = attackers(noisy(), EPS, 8, clean=clean(), draws=2, knows_seed=False)
    found = attack_detector(noisy(), x, y, attackers={"evading": made["evading"]}, doubt=False)
    assert found.rows[0].success.count > 0
    wrong, passed = unflagged(noisy(), found.rows[0].images, y)
    assert (found.rows[0].succeeded == (wrong & passed & ~unflagged(noisy(), x, y)[0])).all()
    assert not any(one.fired for one in found.rows[0].diagnostics if one.name == "silent success")


def test_a_detector_without_noise_has_one_suspicion_whatever_is_known_of_its_seed() -> None:
    detector = plain()
    x, y = held(0, 5)
    probe = Prober(detector.model, x, y)(x)
    score = expected_suspicion(detector, 3, knows_seed=False)
    assert score(probe).numpy() == pytest.approx(-detector.score_samples(x), rel=1e-4, abs=1e-4)
    few = {"noise": known()["noise"]}
    notes = [attack_detector(detector, x, y, attackers=few, doubt=False, draws=one).notes for one in (1, 3)]
    assert notes[0] == ()
    assert "draws no noise" in notes[1][0]


def test_the_combined_loss_is_followed_along_its_own_gradient() -> None:
    detector = plain()
    x, y = held(150, 158)
    weight = 0.3
    attack = combined("l2", eps=10.0, step_size=1e-3, score=detector.suspicion, weight=weight)
    moved = last_probe(detector, attack, x, y, 1).x - x

    def whole(one: Probe) -> Tensor:
        return log_loss(one) - weight * detector.suspicion(one)

    gradient = Prober(detector.model, x, y, None, whole)(x, ["objective_grad"]).objective_grad
    inside = ((x > 0.01) & (x < 0.99)).float()  # elsewhere the box cuts the step short
    cosine = nn.functional.cosine_similarity((moved * inside).flatten(1), (gradient * inside).flatten(1))
    assert cosine.min() > 0.999


@pytest.mark.parametrize("matched", ["logits", "features"])
def test_matching_leads_each_image_to_a_guide_of_another_class(matched: str) -> None:
    detector = plain()
    x, y = held(150, 170)
    guides = Guides.of(detector, clean())
    wanted = guides.nearest(detector, x, y, matched, 1)
    there = getattr(guides, matched)
    classes = guides.logits.argmax(dim=1)
    of = torch.stack([(there == one).all(dim=1).nonzero()[0, 0] for one in wanted])
    assert (classes[of] != y).all()
    attack = imitation(eps=EPS, step_size=EPS / 8, matched=matched, wanted=wanted)
    start, end = Prober(detector.model, x, y)(x), last_probe(detector, attack, x, y, 10)
    before, after = ((getattr(one, matched) - wanted).norm(dim=1) for one in (start, end))
    assert (after < before).all()
    nearest = guides.nearest(detector, x, y, matched, 0)
    assert ((nearest - getattr(start, matched)).norm(dim=1) <= before + 1e-5).all()


def test_guides_that_are_flagged_or_of_one_class_are_no_guides() -> None:
    detector = plain()
    x = clean()
    assert len(Guides.of(detector, x).logits) == int((detector.predict(x) > 0).sum())
    with pytest.raises(InputError, match="at least two predicted classes"):
        Guides.of(detector, x[detector.model.logits_of(x).argmax(dim=1) == 3])


# --- the whole of a real detector -----------------------------------------------------------------------


def test_whoever_follows_the_score_takes_back_the_grain_that_a_blind_attack_leaves(
    correct_cifar, cifar
) -> None:
    """Questions about the image are limited, and still slope beyond their limit: nobody is starved of gradients there."""
    net, x, y = correct_cifar
    detector = ImageDetector(net, fpr=0.1, budget=2).fit(cifar[0][200:400], cifar[0][400:500])
    rows = torch.from_numpy(detector.predict(x) > 0).nonzero().flatten()[:8]
    x, y = x[rows], y[rows]

    def image_nats(images: Tensor) -> Tensor:
        found = detector.explain(images)
        return torch.from_numpy(found["grain"] + found["pattern"])

    blind = last_probe(detector, attacks.pgd(eps=8 / 255, step_size=2 / 255), x, y, 10).x
    clean_nats, left = image_nats(x).mean(), image_nats(blind)
    assert left.mean() > clean_nats + 2
    assert (left > 4).any()  # the limits of both, halved by their weights
    for name in ("selective", "evading"):
        found = attackers(detector, 8 / 255, 20, clean=cifar[0][400:500])[name](x, y, range(8), 0)
        assert found.succeeded.sum() >= 6
        assert found.needed > 0
        assert found.flat == 0
        assert image_nats(found.images).mean() < clean_nats + 1
