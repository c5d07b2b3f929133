"""Rates, thresholds, precision, areas under ROC curves and their intervals."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from uncannyvalley.detect.conformal import Calibration
from uncannyvalley.detect.evaluation.rates import (
    Rate,
    clopper_pearson,
    empirical_threshold,
    precision,
    promised_threshold,
)
from uncannyvalley.detect.evaluation.roc import (
    auroc,
    log_roc,
    percentiles,
    resampled_pairs,
    resamples,
    share_of_pairs,
    wins,
)
from uncannyvalley.errors import InputError


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.mark.parametrize(
    ("count", "out_of"), [(0, 1), (1, 1), (0, 30), (30, 30), (3, 30), (17, 300), (299, 300)]
)
def test_intervals_of_rates_are_clopper_and_pearsons(count: int, out_of: int) -> None:
    expected = binomtest(count, out_of).proportion_ci(0.95, method="exact")
    assert clopper_pearson(count, out_of) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert Rate.of(count, out_of).value == count / out_of


def test_a_rate_of_nothing_says_nothing() -> None:
    rate = Rate.where(np.zeros(0, dtype=bool))
    assert math.isnan(rate.value)
    assert (rate.low, rate.high) == (0.0, 1.0)
    with pytest.raises(InputError, match="at most 3 rows, got 4"):
        Rate.of(4, 3)


@pytest.mark.parametrize(
    ("fpr", "threshold"), [(0.0, 9.0), (0.09, 9.0), (0.1, 8.0), (0.25, 7.0), (0.9, 0.0), (1.0, 0.0)]
)
def test_the_empirical_threshold_lets_so_many_clean_scores_above(fpr: float, threshold: float) -> None:
    clean = np.array([3.0, 9, 0, 1, 2, 8, 7, 6, 5, 4])
    assert empirical_threshold(clean, fpr) == threshold
    assert (clean > threshold).mean() <= fpr


def test_tied_clean_scores_are_not_flagged() -> None:
    clean = np.array([0.0, 1.0, 1.0, 1.0])
    assert empirical_threshold(clean, 0.5) == 1.0


def test_the_promised_threshold_at_the_detectors_own_rate_is_its_own(draw: np.random.Generator) -> None:
    calibration = Calibration.of(draw.normal(size=60), 0.05)
    assert promised_threshold(calibration, 0.05) == calibration.threshold
    assert promised_threshold(calibration, 0.1) == Calibration.of(calibration.scores, 0.1).threshold
    assert promised_threshold(calibration, 0.01) is None


def test_precision_by_hand() -> None:
    found = precision(Rate.of(8, 10), Rate.of(5, 100), 0.01)
    assert found.value == pytest.approx(0.01 * 0.8 / (0.01 * 0.8 + 0.99 * 0.05))
    assert found.low < found.value < found.high
    assert math.isnan(precision(Rate.of(0, 10), Rate.of(0, 10), 0.01).value)
    assert precision(Rate.of(1, 10), Rate.of(0, 10), 0.01).value == 1.0


def test_auroc_by_hand() -> None:
    # pairs pushed > clean: of 2 against {1, 2, 4} one and a half, of 5 all three
    assert auroc(np.array([1.0, 2.0, 4.0]), np.array([2.0, 5.0])).value == pytest.approx(4.5 / 6)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_that_of_scikit_learn(ties: bool, draw: np.random.Generator) -> None:
    clean, pushed = draw.normal(size=83), draw.normal(size=57) + 0.7
    if ties:
        clean, pushed = clean.round(), pushed.round()
    expected = roc_auc_score(np.r_[np.zeros(83), np.ones(57)], np.r_[clean, pushed])
    assert auroc(clean, pushed).value == pytest.approx(expected, abs=1e-12)


def test_its_variance_is_delongs_from_all_pairs(draw: np.random.Generator) -> None:
    clean, pushed = draw.normal(size=40).round(1), (draw.normal(size=25) + 1).round(1)
    pairs = wins(pushed, clean).astype(np.float64)
    variance = pairs.mean(axis=1).var(ddof=1) / 25 + pairs.mean(axis=0).var(ddof=1) / 40
    found = auroc(clean, pushed)
    odds = math.log(found.value / (1 - found.value))
    reach = norm.ppf(0.975) * math.sqrt(variance) / (found.value * (1 - found.value))
    assert math.log(found.high / (1 - found.high)) == pytest.approx(odds + reach)
    assert math.log(found.low / (1 - found.low)) == pytest.approx(odds - reach)


def test_the_interval_covers_the_known_area(draw: np.random.Generator) -> None:
    known = norm.cdf(1.5 / math.sqrt(2))
    covered = 0
    for _ in range(400):
        found = auroc(draw.normal(size=60), draw.normal(size=40) + 1.5)
        covered += found.low <= known <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_identical_scores_order_nothing() -> None:
    assert auroc(np.zeros(20), np.zeros(10)).value == 0.5
    assert auroc(np.full(20, np.inf), np.full(10, np.inf)).value == 0.5


@pytest.mark.parametrize(("shift", "value"), [(10.0, 1.0), (-10.0, 0.0)])
def test_perfect_order_keeps_the_doubt_of_few_images(shift: float, value: float) -> None:
    found = auroc(np.arange(8.0), np.arange(5.0) + shift)
    assert found.value == value
    assert (found.low, found.high) == clopper_pearson(5 if value else 0, 5)
    assert math.isnan(auroc(np.zeros(0), np.ones(3)).value)


def test_the_roc_is_the_best_true_positive_rate_at_no_more_than_each_rate(draw: np.random.Generator) -> None:
    clean, pushed = draw.normal(size=50).round(1), (draw.normal(size=30) + 1).round(1)
    rates, caught = log_roc(clean, pushed)
    assert rates[0] == pytest.approx(1e-3)
    assert rates[-1] == 1.0
    assert np.diff(np.log(rates)) == pytest.approx(math.log(1000) / 60)
    cuts = np.append(np.unique(np.r_[clean, pushed]), -np.inf)
    for rate, share in zip(rates, caught, strict=True):
        allowed = [(pushed > cut).mean() for cut in cuts if (clean > cut).mean() <= rate + 1e-12]
        # thresholds are taken at clean scores, so a tie of both groups may cost a little
        assert share == pytest.approx(max(allowed))
    assert caught[-1] == 1.0


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_resampled_areas_are_those_of_resampled_scores(share: float, draw: np.random.Generator) -> None:
    clean, pushed = draw.normal(size=30), draw.normal(size=25) + 1
    pairs = (draw.random((25, 30)) < share).astype(np.float32)
    drawn = resamples(30, seed=3, count=20)
    rows = drawn, np.arange(25), np.arange(30)
    won = wins(pushed, clean)
    found = share_of_pairs(resampled_pairs(won * pairs, *rows), resampled_pairs(pairs, *rows))
    for sample, value in zip(drawn.astype(int), found, strict=True):
        again = np.repeat(np.repeat(pairs, sample[:25], axis=0), sample, axis=1) > 0
        wins_again = wins(np.repeat(pushed, sample[:25]), np.repeat(clean, sample))
        assert value == pytest.approx(wins_again[again].mean(), abs=1e-6)
    assert (drawn.sum(axis=1) == 30).all()


def test_percentiles_leave_samples_without_pairs_out() -> None:
    found = percentiles(0.5, np.array([np.nan, *np.linspace(0, 1, 1001)]))
    assert (found.low, found.high) == pytest.approx((0.025, 0.975))
