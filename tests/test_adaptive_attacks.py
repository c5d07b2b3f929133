"""Attackers who know the detector: they beat weak ones, and what counts as success is the detector's own verdict."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adaptive_cases import AWARE, EPS, clean, held, known, last_probe, plain, table, unflagged
from uncannyvalley import attacks
from uncannyvalley.detect.adaptive import (
    Search,
    Walker,
    attack_detector,
    attackers,
    imitation,
)
from uncannyvalley.detect.adaptive.best import Best
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.errors import InputError
from uncannyvalley.objectives import log_loss
from uncannyvalley.types import Attack, Probe


def test_those_who_know_the_score_beat_a_detector_that_stops_those_who_do_not() -> None:
    """Most ends of plain PGD are flagged, as they should; along the detector's own gradient nearly everything passes."""
    detector = plain()
    x, y = held(150, 190)
    wrong, passed = unflagged(detector, x, y)
    rows = torch.from_numpy(~wrong & passed)
    end = last_probe(detector, attacks.pgd(eps=0.4, step_size=0.05), x[rows], y[rows], 20)
    wrong, passed = unflagged(detector, end.x, y[rows])
    blind = (wrong & passed).mean()
    assert wrong.all()
    assert blind < 0.5
    knowing = attackers(detector, 0.4, 20, clean=clean())
    for name in ("selective", "evading", "combined loss"):
        found = attack_detector(detector, x, y, attackers={name: knowing[name]}, doubt=False)
        assert found.attacked == len(end.x)
        assert found.headline.success.low > blind + 0.25


def test_success_is_misclassified_and_not_flagged_within_the_ball() -> None:
    detector = plain()
    x, y = held(150, 190)
    for row in (*table().rows, table().headline):
        wrong, passed = unflagged(detector, row.images, y)
        assert (row.succeeded == (wrong & passed & ~unflagged(detector, x, y)[0])).all()
        assert row.succeeded.sum() == row.success.count
        assert (row.images - x).abs().max() <= EPS + 1e-6
        assert row.images.min() >= 0
        assert row.images.max() <= 1
        assert row.flagged.out_of == row.misclassified.count
        assert row.flagged.count == row.misclassified.count - row.success.count
    union = np.any([one.succeeded for one in table().rows if one.sees != "chance"], axis=0)
    assert (union == table().headline.succeeded).all()


def test_only_images_that_are_right_and_unflagged_at_the_start_count() -> None:
    detector = plain()
    x, y = (one.clone() for one in held(150, 180))
    y[:4] = (y[:4] + 1) % 10
    wrong, passed = unflagged(detector, x, y)
    noise = {"noise": known()["noise"]}
    found = attack_detector(detector, x, y, attackers=noise, doubt=False)
    assert (found.given, found.wrong, found.flagged) == (30, int(wrong.sum()), int((~wrong & ~passed).sum()))
    assert found.wrong >= 4
    assert found.flagged > 0
    assert found.rows[0].success.out_of == found.attacked == int((~wrong & passed).sum())
    left_out = torch.from_numpy(wrong | ~passed)
    assert torch.equal(found.rows[0].images[left_out], x[left_out])


def visiting(point: Tensor) -> Attack:
    """A walk that goes to ``point`` at its second step and back to the clean image at the third."""

    def step(probe: Probe, count: int, prober: object, draws: object) -> tuple[Tensor, int]:
        return (point if count == 1 else probe.clean), count + 1

    return Attack("visiting", {}, log_loss, frozenset(), lambda *_: 0, step)


def test_a_success_on_the_way_is_not_lost_when_the_walk_leaves_it() -> None:
    detector = plain()
    x, y = held(150, 190)
    rows = torch.from_numpy(table().headline.succeeded)
    point = table().headline.images[rows]
    assert len(point) > 3
    walker = Walker(detector, (lambda search: visiting(point),), EPS, steps=4)
    best = walker(x[rows], y[rows], list(range(len(point))), 0)
    assert best.succeeded.all()
    assert torch.equal(best.images, point)


def test_of_two_misclassified_points_the_less_suspicious_is_kept_whatever_came_first() -> None:
    best = Best(torch.zeros(3, 2), threshold=1.0)
    everyone = torch.arange(3)
    for value, wrong, suspicion in (
        (0.1, [True, True, False], [5.0, 0.5, -9.0]),
        (0.2, [True, True, False], [2.0, 0.9, -9.0]),
        (0.3, [False, False, False], [0.0, 0.0, 0.0]),
    ):
        best.see(everyone, torch.full((3, 2), value), torch.tensor(wrong), torch.tensor(suspicion).double())
    assert best.images[:, 0].tolist() == pytest.approx([0.2, 0.1, 0.0])
    assert best.misclassified.tolist() == [True, True, False]
    assert best.succeeded.tolist() == [False, True, False]


def test_restarts_walk_on_where_the_first_walk_found_nothing() -> None:
    """Restarts start at random points: another way, for the images that are left."""
    detector = plain()
    x, y = held(150, 190)
    starts: list[tuple[int, bool]] = []

    def make(search: Search) -> Attack:
        starts.append((len(search.x), search.random_start))
        return attacks.pgd(eps=EPS, step_size=search.step_size, random_start=search.random_start)

    walker = Walker(detector, (make,), EPS, steps=3)
    once = walker(x, y, range(40), 0)
    more = walker.harder(restarts=2)(x, y, range(40), 0)
    assert starts[0] == starts[1] == (40, False)
    assert starts[2] == (int((~once.succeeded).sum()), True)
    assert more.succeeded[once.succeeded].all()
    assert (more.suspicion <= once.suspicion).all()


def test_the_table_is_plain_json_and_the_same_for_the_same_seed() -> None:
    detector = plain()
    fours = held(0, 500)[1] == 4
    x, y = (one[fours][20:24] for one in held(0, 500))
    few = {name: known()[name] for name in ("evading", "square", "noise")}
    seen: list[int] = []
    found = attack_detector(detector, x, y, attackers=few, progress=seen.append)
    assert sum(seen) == 4 * 3
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["attacked"] == found.attacked
    assert content["headline"]["success"]["count"] == found.headline.success.count
    assert [one["attacker"] for one in content["rows"]] == ["evading", "square", "noise"]
    assert content["settings"]["threshold"] == detector.threshold
    assert "best of all" in str(found)
    again = attack_detector(detector, x, y, attackers=few)
    for one, other in zip(found.rows, again.rows, strict=True):
        assert torch.equal(one.images, other.images)


def test_another_seed_walks_another_way_and_the_same_seed_the_same() -> None:
    x, y = held(150, 160)
    wrong = (y + 1) % 10  # misclassified at every point: the least suspicious is kept
    once, again, other = (known()["noise"](x, wrong, range(10), seed).images for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_inputs_that_are_no_images_are_attacked_without_squares() -> None:
    torch.manual_seed(0)
    x = held(0, 400)[0].flatten(1)
    net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()
    labels = net(x).argmax(dim=1)
    detector = ImageDetector(net, fpr=0.2).fit(x[:200], x[200:300])
    made = attackers(detector, 0.1, 4, clean=x[:200])
    assert "square" not in made
    assert set(AWARE) <= set(made)
    found = attack_detector(
        detector, x[300:310], labels[300:310], eps=0.1, steps=4, doubt=False, clean=x[:200]
    )
    assert len(found.rows) == len(made)


def test_what_cannot_be_attacked_is_refused_with_the_reason() -> None:
    detector = plain()
    x, y = held(150, 160)
    with pytest.raises(InputError, match="call fit"):
        attack_detector(ImageDetector(detector.net), x, y)
    with pytest.raises(InputError, match="none of the 10 images"):
        attack_detector(detector, x, (detector.model.logits_of(x).argmax(dim=1) + 1) % 10, attackers=known())
    with pytest.raises(InputError, match="1 to 4"):
        attack_detector(detector, x, y, draws=5, clean=clean())
    with pytest.raises(InputError, match="eps"):
        attack_detector(detector, x, y, eps=-1.0, clean=clean())
    with pytest.raises(InputError, match="attackers is empty"):
        attack_detector(detector, x, y, attackers={})
    with pytest.raises(InputError, match="classes 0 to 9"):
        attack_detector(detector, x, y + 10)
    with pytest.raises(InputError, match="logits"):
        imitation(eps=EPS, step_size=0.01, matched="logit", wanted=torch.zeros(1, 10))
