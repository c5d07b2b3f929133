"""What is left at equal confidence, what seeing attacks would add, and what a result would imply."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from uncannyvalley.detect.evaluation import SupervisedDetector
from uncannyvalley.detect.evaluation.strata import CALIPER, Group, contrast, nearest, same_bin
from uncannyvalley.detect.evaluation.supervised import ALL_OTHERS, seen_unseen
from uncannyvalley.detect.evaluation.tramer import implied
from uncannyvalley.errors import InputError


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(11)


def group(draw: np.random.Generator, count: int, margin: float, own: float, first: int = 0) -> Group:
    """Images whose margin is shifted by ``margin``; "confidence" is that margin, "own" is shifted by itself, "both" is their sum."""
    matched = draw.normal([margin, 0], size=(count, 2))
    mine = draw.normal(size=count) + own
    scores = {"confidence": matched[:, 0], "own": mine, "both": matched[:, 0] + mine}
    return Group(scores, matched, np.arange(first, first + count))


@pytest.mark.parametrize("method", ["bins", "neighbours"])
def test_what_is_margin_alone_is_worth_nothing_among_equals(method: str, draw: np.random.Generator) -> None:
    pushed, clean = group(draw, 400, margin=1.0, own=0.0), group(draw, 600, margin=0.0, own=0.0, first=400)
    plain = contrast(pushed, clean, "confidence", [], against="clean", method="all pairs")
    matched = contrast(pushed, clean, "confidence", [], against="clean", method=method)
    assert plain.auroc.value == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.03)
    assert abs(matched.auroc.value - 0.5) < 0.07
    assert 0 < matched.pairs < plain.pairs == 400 * 600
    assert matched.covered > 0.7
    assert matched.residual == pytest.approx(abs(matched.auroc.value - 0.5), abs=0.03)
    assert plain.residual > 0.2


@pytest.mark.parametrize("method", ["all pairs", "bins", "neighbours"])
def test_what_is_a_detectors_own_remains(method: str, draw: np.random.Generator) -> None:
    pushed, clean = group(draw, 300, margin=1.0, own=1.0), group(draw, 400, margin=0.0, own=0.0, first=300)
    found = contrast(pushed, clean, "own", ["confidence", "own"], against="clean", method=method)
    assert found.auroc.low < norm.cdf(1 / math.sqrt(2)) < found.auroc.high
    assert (found.gains["own"].value, found.gains["own"].low, found.gains["own"].high) == (0.0, 0.0, 0.0)
    assert (found.gains["confidence"].low > 0.02) == (method != "all pairs")


def test_pairing_makes_the_interval_of_a_gain_narrow(draw: np.random.Generator) -> None:
    pushed, clean = group(draw, 100, margin=1.0, own=1.0), group(draw, 100, margin=0.0, own=0.0)
    nearly = {
        name: {**one.scores, "nearly": one.scores["own"] + 1e-3}
        for name, one in (("p", pushed), ("c", clean))
    }
    nearly["c"]["nearly"] = clean.scores["own"]
    first, second = (
        Group(nearly["p"], pushed.matched, pushed.images),
        Group(nearly["c"], clean.matched, clean.images),
    )
    found = contrast(first, second, "own", ["nearly"], against="clean", method="all pairs")
    assert found.gains["nearly"].high - found.gains["nearly"].low < 0.01
    assert found.auroc.high - found.auroc.low > 0.05


def test_the_same_bin_in_every_number() -> None:
    first = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    second = np.array([[0.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
    expected = [[True, False, False], [False, False, False], [False, True, False]]
    assert same_bin(first, second).tolist() == expected


def test_bins_weigh_both_groups_alike() -> None:
    many, few = np.zeros((1000, 1)), np.linspace(1, 5, 50)[:, None]
    assert not same_bin(few, many).any()


def test_the_nearest_neighbour_within_reach() -> None:
    second = np.array([[-1.0], [1.0]])  # standard deviation 1
    first = np.array([[1.0 + 0.9 * CALIPER], [1.0 + 1.1 * CALIPER], [-1.1], [0.0]])
    expected = [[False, True], [False, False], [True, False], [False, False]]
    assert nearest(first, second).tolist() == expected


def test_nothing_to_compare_with(draw: np.random.Generator) -> None:
    pushed, clean = group(draw, 5, margin=0.0, own=1.0), group(draw, 5, margin=0.0, own=0.0)
    empty = clean.rows(np.zeros(5, dtype=bool))
    for method in ("all pairs", "bins", "neighbours"):
        for first, second in ((pushed, empty), (empty, clean)):
            found = contrast(first, second, "own", ["both"], against="clean", method=method)
            assert found.pairs == 0
            assert math.isnan(found.auroc.value)
            assert math.isnan(found.gains["both"].value)


def test_it_learns_both_tails_and_keeps_its_promise(draw: np.random.Generator) -> None:
    pushed = draw.normal(size=(200, 2)) * [1, 0.3] + [0, 0] + np.c_[draw.choice([-4, 4], 200), np.zeros(200)]
    flagged = []
    for _ in range(40):
        clean = draw.normal(size=(400, 2))
        rows, y = np.r_[clean[:200], pushed], np.r_[np.ones(200), -np.ones(200)]
        detector = SupervisedDetector(fpr=0.1).fit(rows, y).calibrate(clean[200:])
        flagged.append((detector.predict(draw.normal(size=(200, 2))) < 0).mean())
        assert (detector.predict(pushed) < 0).mean() > 0.9
    assert 0.08 < np.mean(flagged) < 0.105
    assert ((detector.p_values(clean) <= 0.1) == (detector.predict(clean) < 0)).all()


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.ones(20), "both must occur"),
        (np.r_[np.ones(10), np.zeros(10)], "−1 for each"),
        (np.ones(3), "shape"),
    ],
)
def test_labels_that_teach_nothing_are_refused(y: np.ndarray, says: str, draw: np.random.Generator) -> None:
    with pytest.raises(InputError, match=says):
        SupervisedDetector().fit(draw.normal(size=(20, 2)), y)


def test_p_values_need_calibration(draw: np.random.Generator) -> None:
    detector = SupervisedDetector().fit(draw.normal(size=(20, 2)), np.r_[np.ones(10), -np.ones(10)])
    with pytest.raises(InputError, match="call calibrate"):
        detector.p_values(draw.normal(size=(5, 2)))


def test_what_one_attack_teaches_of_another(draw: np.random.Generator) -> None:
    clean = draw.normal(size=(400, 3))
    everyone = np.ones(400, dtype=bool)
    attacks = {
        "a": (draw.normal([5, 0, 0], size=(400, 3)), everyone),
        "like a": (draw.normal([6, 0, 0], size=(400, 3)), everyone),
        "b": (draw.normal([0, 5, 0], size=(400, 3)), everyone),
        "rare": (draw.normal([0, 5, 0], size=(400, 3)), np.arange(400) < 5),
    }
    found = seen_unseen(clean, everyone, attacks)
    assert found is not None
    assert found.rows == (ALL_OTHERS, "a", "like a", "b")
    assert found.columns == tuple(attacks)
    share = {row: dict(zip(found.columns, found.caught[i], strict=True)) for i, row in enumerate(found.rows)}
    assert share["a"]["like a"].value > 0.95
    assert share["a"]["b"].value < 0.3
    assert share["b"]["b"].value > 0.95
    assert share[ALL_OTHERS]["like a"].value > 0.95
    assert share[ALL_OTHERS]["b"].value < 0.5
    assert share["b"]["a"].out_of == 120  # the third part of 400 images
    assert np.mean([one.value for row in found.clean for one in row]) < 0.12


def test_no_image_is_learned_from_and_calibrated_on(
    draw: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, everyone = draw.normal(size=(200, 2)), np.ones(200, dtype=bool)
    used: dict[str, set[float]] = {"fit": set(), "calibrate": set(), "predict": set()}
    for name, rows_used in used.items():
        whole = getattr(SupervisedDetector, name)

        def spied(self, X, *rest, whole=whole, rows_used=rows_used):
            rows_used |= set(X[:, 0].tolist()) & set(clean[:, 0].tolist())
            return whole(self, X, *rest)

        monkeypatch.setattr(SupervisedDetector, name, spied)
    seen_unseen(clean, everyone, {"a": (clean + 5, everyone), "b": (clean - 5, everyone)})
    assert [len(one) for one in used.values()] == [80, 60, 60]
    assert len(set.union(*used.values())) == 200


def test_too_few_images_teach_nothing(draw: np.random.Generator) -> None:
    clean, everyone = draw.normal(size=(40, 2)), np.ones(40, dtype=bool)
    attacks = {"a": (clean + 5, everyone)}
    assert seen_unseen(clean, everyone, attacks, fpr=0.05) is None  # 12 images to calibrate on, 19 needed
    assert seen_unseen(clean, everyone, attacks, fpr=0.1) is not None
    assert seen_unseen(clean, everyone, {"a": (clean, ~everyone)}, fpr=0.1) is None


def test_an_implausible_claim_is_flagged() -> None:
    accepted = np.arange(100) < 95
    safe = {"small": np.arange(100) < 97, "large": np.arange(100) >= 5, "free": np.zeros(100, dtype=bool)}
    eps = {"small": 0.1, "large": 0.2}
    small, large = implied(accepted, safe, eps, {0.05: 0.99, 0.1: 0.7})
    assert (small.eps, small.attacks, small.accuracy.count, small.implied_eps) == (0.1, ("small",), 95, 0.05)
    assert (large.attacks, large.accuracy.count, large.known) == (("small", "large"), 90, 0.7)
    assert small.implausible is False
    assert large.implausible is True
    assert "not to be believed" in str(large)


def test_a_smaller_radius_bounds_what_is_known() -> None:
    everyone = np.ones(50, dtype=bool)
    (claim,) = implied(everyone, {"a": everyone}, {"a": 0.3}, {0.0: 0.9, 0.1: 0.8, 0.2: 0.4})
    assert claim.known == 0.8
    (claim,) = implied(everyone, {"a": everyone}, {"a": 0.3}, {0.2: 0.4})
    assert (claim.known, claim.implausible) == (None, None)
    assert implied(everyone, {"a": everyone}, {}) == []


@pytest.mark.parametrize(
    ("eps", "known", "says"),
    [
        ({"b": 0.1}, None, "'b', which was not"),
        ({"a": 0.0}, None, "positive"),
        ({"a": 0.1}, {0.1: 80.0}, "between 0 and 1"),
    ],
)
def test_claims_about_nothing_are_refused(eps: dict, known: dict | None, says: str) -> None:
    everyone = np.ones(3, dtype=bool)
    with pytest.raises(InputError, match=says):
        implied(everyone, {"a": everyone}, eps, known)
