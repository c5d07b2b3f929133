"""Attackers who only ask, the guarded network that answers them, and what every attacker's questions cost."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from adaptive_cases import EPS, held, noisy, plain, table, unflagged, with_threshold
from uncannyvalley import attacks
from uncannyvalley.detect.adaptive import BlackBox, Guarded, Walker, attack_detector, combined
from uncannyvalley.detect.adaptive.meter import metered
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.probe import Prober
from uncannyvalley.types import CONSTRAINT_GRAD


@pytest.mark.parametrize("fitted", [plain, noisy])
def test_the_guarded_network_is_wrong_exactly_where_the_network_is_wrong_and_the_detector_silent(
    fitted: Callable[[], ImageDetector],
) -> None:
    detector = fitted()
    x = held(150, 350)[0]
    queries = torch.cat(
        [x, (x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)]
    )
    seen = set()
    for label in (3, 8):
        guarded = Guarded(detector, label, x[:1], EPS)
        wrong, passed = unflagged(detector, queries, torch.full((len(queries),), label))
        logits = guarded(queries)
        assert ((logits.argmax(dim=1) != label).numpy() == (wrong & passed)).all()
        seen |= set(zip(wrong.tolist(), passed.tolist(), strict=True))
        others = [one for one in range(10) if one != label]
        assert torch.allclose(logits[:, others], detector.net(queries)[:, others], atol=1e-4)
    assert len(seen) == 4  # all four cases were there


def test_the_guarded_margin_says_what_is_missing() -> None:
    """max(margin of the label, suspicion − threshold): both must be brought below zero."""
    detector = plain()
    x = held(150, 250)[0]
    logits = Guarded(detector, 3, x[:1], EPS)(x).double()
    own = detector.net(x).double()
    others = [one for one in range(10) if one != 3]
    margin = own[:, 3] - own[:, others].amax(dim=1)
    excess = torch.from_numpy(-detector.score_samples(x)) - detector.threshold
    found = logits[:, 3] - logits[:, others].amax(dim=1)
    assert torch.allclose(found, torch.maximum(margin, excess), atol=1e-3)


def test_the_guarded_network_remembers_the_best_query_in_each_ball_and_none_outside() -> None:
    detector = plain()
    x, y = held(150, 190)
    row = int(np.flatnonzero(table().headline.succeeded)[0])
    label = int(y[row])
    found = table().headline.images[row : row + 1]
    away = (x[row : row + 1] + 5 * (found - x[row : row + 1])).clamp(0, 1)
    guarded = Guarded(detector, label, torch.cat([1 - x[row : row + 1], x[row : row + 1]]), EPS)
    guarded(torch.cat([x[row : row + 1], found, away]))
    assert guarded.best.succeeded.tolist() == [False, True]
    assert torch.equal(guarded.best.images[1:], found)
    shy = Guarded(detector, label, x[row : row + 1], float((found - x[row : row + 1]).abs().max()) / 2)
    shy(found)
    assert not shy.best.misclassified.any()


def test_square_beats_a_detector_by_questions_alone() -> None:
    """In a larger ball, without one backward."""
    detector = plain()
    few = held(150, 250)[1] < 3  # images of one class are attacked together
    x, y = (one[few][:16] for one in held(150, 250))
    attacker = BlackBox(detector, 0.4, 80)
    row = attack_detector(detector, x, y, attackers={"square": attacker}, doubt=False).rows[0]
    assert row.success.count >= 3
    assert row.backwards == 0
    assert row.forwards > 10
    wrong, passed = unflagged(detector, row.images, y)
    assert (wrong & passed)[row.succeeded].all()
    assert (row.images - x).abs().max() <= 0.4 + 1e-5


def test_every_pass_through_the_network_is_counted() -> None:
    detector = plain()
    x, y = held(150, 157)
    never = (lambda search: attacks.assist(eps=EPS, step_size=search.step_size),)
    with metered(detector.model) as spent:
        Walker(detector, never, EPS, steps=5)(x, y, range(7), 0)
    assert (spent.forwards, spent.backwards) == (7 * 6, 7 * 5)
    with metered(noisy().model) as spent:
        noisy().score_samples(x)
    assert (spent.forwards, spent.backwards) == (7 * noisy().forwards, 0)
    prober = Prober(noisy().model, x, y)
    with metered(noisy().model) as spent:
        prober(x, [CONSTRAINT_GRAD], None, noisy().suspicion)
    assert (spent.forwards, spent.backwards) == (7 * noisy().forwards, 7 * noisy().forwards)
    before = spent.forwards
    noisy().score_samples(x)
    assert spent.forwards == before  # nothing is counted afterwards


def test_a_verdict_on_the_score_that_a_walk_follows_costs_nothing_extra() -> None:
    x = held(150, 160)[0]
    score = noisy().suspicion
    walks = (lambda search: combined(eps=1e-4, step_size=1e-5, score=score, weight=0.1),)
    spent = []
    for exact in (score, None):
        with metered(noisy().model) as one:
            wrong = (noisy().model.logits_of(x).argmax(dim=1) + 1) % 10  # misclassified at every point
            Walker(with_threshold(noisy(), -1.0), walks, EPS, steps=3, exact=exact)(x, wrong, range(10), 0)
        spent.append(one.forwards)
    assert spent[0] < spent[1]
