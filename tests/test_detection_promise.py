"""A promised false-positive rate is kept: by enumeration, by simulation, and on scores recorded from a real network."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from jaxtyping import config
from scipy import stats
from torch import Tensor, nn

import detection_oracles as twins
from recorded_columns import NAMES, computed, recorded
from uncannyvalley import InputError, SharpnessDetector
from uncannyvalley.detect.conformal import Calibration, check_fpr, rows_needed
from uncannyvalley.detect.recipes import recipe_of

SPLITS = 500


# --- by enumeration -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(2, 8))
def test_every_rank_is_equally_likely_ties_included(count: int) -> None:
    """P(p ≤ α) ≤ α over which of the scores is the new one, for all scores out of three values, and sharp without ties."""
    for scores in itertools.combinations_with_replacement(range(3), count):
        p = [_alone(scores, i, 0) for i in range(count)]
        for alpha in _rates(count):
            share = sum(one <= alpha for one in p) / count
            assert share <= alpha + 1e-12
    apart = [_alone(tuple(range(count)), i, 0) for i in range(count)]
    assert sorted(apart) == pytest.approx([(i + 1) / count for i in range(count)])


@pytest.mark.parametrize(("clean", "bad"), [(3, 1), (4, 1), (4, 2), (5, 2)])
def test_contamination_never_breaks_the_bound(clean: int, bad: int) -> None:
    """Wherever an adversary puts ``bad`` scores, below, between, at or above the clean ones."""
    worst = 0.0
    for placed in itertools.combinations_with_replacement(np.arange(-0.5, clean + 1, 0.5).tolist(), bad):
        p = []
        for new in range(clean + 1):
            scores = np.sort([*(float(i) for i in range(clean + 1) if i != new), *placed])
            p.append(Calibration(scores, 0.5, bad).p_values(np.array([float(new)]))[0])
        for alpha in _rates(clean + 1):
            share = sum(one <= alpha + 1e-12 for one in p) / (clean + 1)
            assert share <= alpha + 1e-9
            worst = max(worst, share - alpha)
    assert worst == pytest.approx(0, abs=1e-9)  # and no worse than needed


def _alone(scores: tuple[int, ...], new: int, bad: int) -> float:
    rest = np.array([one for i, one in enumerate(scores) if i != new], dtype=float)
    found = Calibration(np.sort(rest), 0.5, bad).p_values(np.array([float(scores[new])]))[0]
    assert found == pytest.approx(twins.p_value(rest.tolist(), scores[new]))
    return found


def _rates(count: int) -> list[float]:
    return [i / (4 * count) for i in range(4 * count + 1)]


@pytest.mark.parametrize(
    "fpr", [0.001, 0.01, 0.05, 0.1, 0.3, 1 / 3, 0.5, 2 / 3, 0.95, 1 - 0.32, 1 - 0.07, 0.1 + 0.2]
)
def test_threshold_and_p_values_agree(fpr: float) -> None:
    """Flagged is p ≤ fpr, at every score and between, ties included."""
    draw = np.random.default_rng(0)
    fpr = check_fpr(fpr)
    for count in {*range(rows_needed(fpr), rows_needed(fpr) + 60), 24, 49, 99, 999} - set(
        range(rows_needed(fpr))
    ):
        for scores in (np.arange(count) * 1.0, draw.integers(0, 6, count) * 1.0):
            for contamination in (0.0, 0.1):
                try:
                    found = Calibration.of(scores, fpr, contamination)
                except InputError:
                    assert count - int(contamination * count) < rows_needed(fpr)
                    continue
                asked = np.unique(np.concatenate([scores, scores - 0.5, [count + 1.0]]))
                assert ((asked > found.threshold) == (found.p_values(asked) <= fpr)).all(), (count, fpr)


def test_p_values_count() -> None:
    draw = np.random.default_rng(0)
    scores, new = draw.integers(0, 30, 60) * 1.0, draw.integers(-2, 33, 40) * 1.0
    for contamination in (0.0, 0.25):
        found = Calibration.of(scores, 0.1, contamination)
        clean = 60 - found.contamination
        expected = [twins.p_value(scores.tolist(), one, clean) for one in new]
        np.testing.assert_allclose(found.p_values(new), expected)


# --- by simulation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "fpr"), [(99, 0.05), (358, 0.05), (25, 0.1)])
def test_intervals_hold_over_draws(count: int, fpr: float) -> None:
    draw, trials = np.random.default_rng(1), 4000
    found = Calibration.of(np.sort(draw.uniform(size=count)), fpr)
    low, high = found.interval()
    thresholds = np.array([Calibration.of(draw.uniform(size=count), fpr).threshold for _ in range(trials)])
    rates = 1 - thresholds
    assert rates.mean() <= fpr + 4 * rates.std() / trials**0.5
    inside = ((rates >= low) & (rates <= high)).mean()
    assert inside == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / trials) ** 0.5)
    flags = draw.binomial(200, rates)
    least, most = found.expected_flags(200)
    assert ((flags < least).mean(), (flags > most).mean()) <= (0.025 + 0.01, 0.025 + 0.01)
    assert ((flags >= least) & (flags <= most)).mean() >= 0.95 - 4 * (0.95 * 0.05 / trials) ** 0.5
    assert ((flags > least) & (flags < most)).mean() < 0.975  # no wider than it must be


def test_expected_flags_by_counting() -> None:
    """The Beta-binomial law is that of ranks: its upper end by binomial coefficients."""
    for images, count, fpr in ((50, 99, 0.05), (258, 259, 0.05), (7, 19, 0.05)):
        found = Calibration.of(np.arange(count) * 1.0, fpr)
        assert found.expected_flags(images)[1] == twins.most_flags(images, count, fpr, 0.975)


def test_contaminated_traffic_keeps_the_promise() -> None:
    """Of 300 images 30 are adversarial, placed to hurt: above, below, at the threshold, spread; the clean rate stays below."""
    draw, trials = np.random.default_rng(2), 600
    places = {
        "above": lambda: np.full(30, 99.0),
        "below": lambda: np.full(30, -99.0),
        "at the threshold": lambda: np.full(30, stats.norm.ppf(0.95)) + draw.normal(size=30) * 0.01,
        "spread": lambda: draw.normal(size=30) * 3,
    }
    for name, place in places.items():
        rates = []
        for _ in range(trials):
            found = Calibration.of(np.concatenate([draw.normal(size=270), place()]), 0.05, 0.1)
            rates.append(stats.norm.sf(found.threshold))
        slack = 4 * np.std(rates) / trials**0.5
        assert np.mean(rates) <= 0.05 + slack, name
        if name == "below":
            assert np.mean(rates) == pytest.approx(0.05, abs=0.004)  # and nothing is given away


def test_a_wrong_bound_breaks_it() -> None:
    """So that the test above can fail: contamination that is declared to be gone from above is not the clean quantile."""
    draw = np.random.default_rng(3)
    rates = []
    for _ in range(500):
        scores = np.sort(np.concatenate([draw.normal(size=270), np.full(30, -99.0)]))
        rates.append(stats.norm.sf(np.quantile(scores[:-30], 0.95)))
    assert np.mean(rates) > 0.1


# --- on recorded scores -------------------------------------------------------------------------------


def realised(
    columns: tuple[str, ...], questions: object, splits: int, seed: int
) -> tuple[np.ndarray, int, int]:
    """False-positive rates of random splits in density, threshold and test; each density serves for 25 splits."""
    rows, classes, _ = recorded()
    rows = rows[:, [NAMES.index(one) for one in columns]]
    draw, rates = np.random.default_rng(seed), []
    for _ in range(splits // 25):
        first, rest = np.split(draw.permutation(len(rows)), [239])
        found = SharpnessDetector(questions, columns).fit(rows[first], classes=classes[first])
        suspicion = -found.score_samples(rows[rest], classes[rest])
        for _ in range(25):
            second, third = np.split(draw.permutation(suspicion), 2)
            rates.append((third > Calibration.of(second, 0.05).threshold).mean())
    return np.array(rates), len(second), len(third)


@pytest.mark.parametrize("budget", [1, 4])
def test_realised_rates_of_random_splits(budget: int) -> None:
    """At most 5 % and what chance adds, in at least 95 % of 500 splits; and no less than promised on average."""
    recipe = recipe_of(budget)
    rates, count, images = realised(recipe.columns, recipe.questions, SPLITS, seed=budget)
    most = twins.most_flags(images, count, 0.05, 0.95) / images
    assert most < 0.11
    assert (rates <= most + 1e-12).mean() >= 0.95 - 2 * (0.95 * 0.05 / SPLITS) ** 0.5
    assert (
        rates <= Calibration.of(np.arange(count) * 1.0, 0.05).expected_flags(images)[1] / images
    ).mean() >= 0.95
    assert rates.mean() == pytest.approx(
        math.floor(0.05 * (count + 1)) / (count + 1), abs=4 * rates.std() / SPLITS**0.5
    )


def test_the_threshold_of_fitted_rows_breaks_the_promise() -> None:
    """Why there is a calibration: with few rows fitted, the rows that set the density are too sure of it."""
    rows, classes, _ = recorded()
    draw, rates = np.random.default_rng(0), []
    for _ in range(60):
        order = draw.permutation(len(rows))
        found = SharpnessDetector().fit(rows[order[:60]])
        rates.append((found.predict(rows[order[60:]]) == -1).mean())
    assert np.mean(rates) > 0.08
    assert len(classes) == len(rows)


def test_right_images_are_flagged_no_more_than_all() -> None:
    """The promise is about clean images, right or wrong; mistakes of the network take more than their share."""
    rows, classes, right = recorded()
    recipe = recipe_of(4)
    chosen = rows[:, [NAMES.index(one) for one in recipe.columns]]
    found = SharpnessDetector(recipe.questions, recipe.columns).fit(chosen[:300], classes=classes[:300])
    found.calibrate(chosen[300:], classes=classes[300:])
    flags = found.predict(chosen[300:], classes[300:]) == -1
    assert flags[right[300:]].mean() < flags.mean() < flags[~right[300:]].mean()


def test_recorded_columns_are_those_of_the_network(
    load_network: Callable[[str], nn.Module], cifar: tuple[Tensor, Tensor]
) -> None:
    """The file that the promise is tested on is what the package reads today."""
    rows, classes, right = recorded()
    found, predicted = computed(load_network("cifar10_resnet20"), cifar[0][:48])
    np.testing.assert_allclose(found, rows[:48], atol=2e-4, rtol=1e-4)
    assert (predicted == classes[:48]).all()
    assert ((predicted == cifar[1][:48].numpy()) == right[:48]).all()
    assert set(NAMES) == {one for budget in (1, 4) for one in recipe_of(budget).columns}


# --- what cannot be promised --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fpr", "needed"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (1 / 3, 2), (0.001, 999), (0.9, 1)]
)
def test_too_few_rows_are_refused_with_the_number(fpr: float, needed: int) -> None:
    assert rows_needed(fpr) == needed
    with pytest.raises(
        InputError, match=f"needs at least {needed} clean calibration images, got {needed - 1}"
    ):
        Calibration.of(np.arange(needed - 1) * 1.0, fpr)
    found = Calibration.of(np.arange(needed) * 1.0, fpr)
    assert found.p_values(np.array([needed + 1.0]))[0] <= fpr + 1e-12
    assert needed + 1.0 > found.threshold


def test_contamination_needs_more_rows() -> None:
    for contamination in (0.05, 0.1, 0.5, 0.9):
        with pytest.raises(InputError, match="got 18") as caught:
            Calibration.of(np.arange(18.0), 0.05, contamination)
        said = int(str(caught.value).split("at least ")[1].split()[0])
        assert Calibration.of(np.arange(said) * 1.0, 0.05, contamination).clean >= 19


@pytest.fixture
def _as_users_run_it() -> Iterator[None]:
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_as_users_run_it")
@pytest.mark.parametrize("fpr", [0, 1, -0.1, 5, float("nan"), float("inf"), True, "0.05", None])
def test_rates_that_are_none(fpr: object) -> None:
    with pytest.raises(InputError, match="fpr must be a false-positive rate"):
        check_fpr(fpr)
    with pytest.raises(InputError, match="fpr must be a false-positive rate"):
        SharpnessDetector(fpr=fpr).fit(np.random.default_rng(0).normal(size=(50, 2)))  # type: ignore[arg-type]


@pytest.mark.usefixtures("_as_users_run_it")
@pytest.mark.parametrize("contamination", [-0.1, 1, 1.5, float("nan"), "much"])
def test_contamination_that_is_no_share(contamination: object) -> None:
    with pytest.raises(InputError, match="contamination must be a share"):
        Calibration.of(np.arange(100.0), 0.05, contamination)  # type: ignore[arg-type]


def test_scores_that_are_not_numbers() -> None:
    with pytest.raises(InputError, match="NaN"):
        Calibration.of(np.append(np.arange(100.0), np.nan), 0.05)


def test_the_new_score_is_not_a_number() -> None:
    """What cannot be compared is suspicious."""
    found = Calibration.of(np.arange(100.0), 0.05)
    assert found.p_values(np.array([np.nan, np.inf])).max() <= 0.05
