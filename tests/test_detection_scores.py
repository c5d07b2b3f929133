"""From columns to one score: curves, questions, and the estimator as scikit-learn wants it."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config
from scipy import stats
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

import detection_oracles as twins
from uncannyvalley import InputError, SharpnessDetector
from uncannyvalley.detect.curves import LARGEST, Curves, normal_scores, surprise
from uncannyvalley.detect.questions import SHRINKAGE, Answers, Question
from uncannyvalley.detect.sharpness_detector import CLASS_PRIOR


def draws(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def grid(low: float = -6, high: float = 6, count: int = 4001) -> Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64)[:, None]


AWKWARD = {
    "normal": draws(500, 1),
    "two rows": draws(2, 1),
    "three rows": draws(3, 1),
    "constant": np.full((50, 1), 3.0),
    "two values": np.repeat([[0.0], [1.0]], 40, axis=0),
    "ties": np.random.default_rng(0).integers(0, 3, (100, 1)).astype(float),
    "half tied": np.concatenate([np.zeros((60, 1)), draws(40, 1)]),
    "tied above": np.concatenate([np.full((60, 1), 5.0), draws(40, 1)]),
    "far off": np.concatenate([draws(50, 1), [[1e30], [-1e30]]]),
    "huge": draws(50, 1) * 1e200,
    "tiny": draws(50, 1) * 1e-300,
    "last digit": 3 + draws(50, 1) * 1e-15,
}


@pytest.mark.parametrize("values", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("curve", [normal_scores, surprise])
def test_curves_rise_and_stay_finite(curve: Any, values: np.ndarray) -> None:
    found: Curves = curve(values)
    scale = np.abs(values).max()
    points = np.concatenate([values[:, 0], np.linspace(-3, 3, 2001) * scale, np.linspace(-50, 50, 501)])
    points = np.sort(np.append(points, [1e30, -1e30, 0.0]))
    x = torch.tensor(points)[:, None].requires_grad_()
    y = found(x)
    assert y.isfinite().all()
    assert y.detach().diff(dim=0).min() >= -1e-9
    assert y.abs().max() <= LARGEST
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.isfinite().all()
    assert slope.min() >= 0


@pytest.mark.parametrize("curve", [normal_scores, surprise])
def test_curves_are_interpolated(curve: Any) -> None:
    """scipy's twin: between knots np.interp, outside straight on with a slope that does not break off."""
    found: Curves = curve(draws(700, 3))
    x = grid().expand(-1, 3)
    for i in range(3):
        at, to = found.at[i].numpy(), found.to[i].numpy()
        inside = (x[:, i].numpy() >= at[0]) & (x[:, i].numpy() <= at[-1])
        np.testing.assert_allclose(
            found(x)[inside, i].numpy(), np.interp(x[inside, i].numpy(), at, to), atol=1e-12
        )
        for edge, value, slope, side in (
            (at[0], to[0], found.before[i].item(), -1),
            (at[-1], to[-1], found.after[i].item(), 1),
        ):
            beyond = torch.full((1, 3), edge + 0.7 * side, dtype=torch.float64)
            assert found(beyond)[0, i].item() == pytest.approx(value + 0.7 * side * slope)


def test_denormal_columns_stay_finite() -> None:
    values = draws(50, 1) * 1e-310
    for curve in (normal_scores, surprise):
        x = torch.tensor(np.append(values, [0.0, 1.0, -1.0]))[:, None].requires_grad_()
        (slope,) = torch.autograd.grad(curve(values)(x).sum(), x)
        assert slope.isfinite().all()


def test_normal_scores_are_normal() -> None:
    values = np.concatenate([draws(2000, 1) ** 3, np.exp(draws(2000, 1, seed=1))], axis=1)
    scores = normal_scores(values)(torch.tensor(values)).numpy()
    for column in scores.T:
        assert stats.kstest(column, "norm").statistic < 0.01
    fresh = np.exp(draws(4000, 1, seed=2))
    found = normal_scores(values[:, 1:])(torch.tensor(fresh)).numpy()[:, 0]
    assert stats.kstest(found, "norm").statistic < 0.04
    order = stats.spearmanr(found, fresh[:, 0]).statistic
    assert order == pytest.approx(1)


def test_surprise_is_the_log_share_above() -> None:
    values = stats.gamma(2).rvs((1500, 1), random_state=3)
    x = np.linspace(0, 14, 600)
    found = surprise(values)(torch.tensor(x)[:, None]).numpy()[:, 0]
    expected = twins.tail_nats(values[:, 0], x)
    np.testing.assert_allclose(found[x > 0.5], expected[x > 0.5], atol=0.05)
    beyond = x > np.quantile(values, 0.9)
    np.testing.assert_allclose(found[beyond], expected[beyond], rtol=1e-9)


def test_a_constant_column_counts_any_departure() -> None:
    curve = normal_scores(np.full((50, 1), 3.0))
    apart = curve(torch.tensor([[2.0], [4.0]], dtype=torch.float64)) - curve(torch.tensor([[3.0]]).double())
    assert apart[0].item() < -0.9
    assert apart[1].item() > 0.9


# --- questions ----------------------------------------------------------------------------------------


def answers(question: Question, rows: np.ndarray) -> Answers:
    return Answers.fit(question, [str(i) for i in range(rows.shape[1])], torch.tensor(rows))


def test_two_sides_are_a_mahalanobis_distance() -> None:
    rows = draws(800, 3) @ np.array([[1, 0.7, 0], [0, 1, 0.2], [0, 0, 2]])
    found = answers(Question("all", {"2": 1.0, "0": 1.0}), rows)
    asked = rows[:, [2, 0]]
    covariance = (1 - SHRINKAGE) * ledoit_wolf(asked)[0] + SHRINKAGE * np.eye(2)
    fresh = draws(20, 3, seed=1)
    apart = fresh[:, [2, 0]] - asked.mean(axis=0)
    expected = [one @ np.linalg.inv(covariance) @ one for one in apart]
    np.testing.assert_allclose(found.distance(torch.tensor(fresh)).numpy(), expected)


@pytest.mark.parametrize("side", ["low", "high"])
def test_one_side_is_a_weighted_sum(side: str) -> None:
    rows = draws(500, 3)
    found = answers(Question("sum", {"0": 2.0, "2": -1.0}, side), rows)
    fresh = draws(20, 3, seed=1)
    sums, sign = 2 * fresh[:, 0] - fresh[:, 2], {"low": -1, "high": 1}[side]
    expected = sign * (sums - (2 * rows[:, 0] - rows[:, 2]).mean())
    np.testing.assert_allclose(found.distance(torch.tensor(fresh)).numpy(), expected)
    order = np.argsort(expected)
    assert (np.diff(found.nats(torch.tensor(fresh)).numpy()[order]) >= 0).all()


def test_given_columns_explain_nothing_of_the_rest() -> None:
    """A sum that is a parabola of a given column, and noise: only the noise is left, so that only noise is suspicious."""
    rows = draws(4000, 3)
    rows[:, 1] = 3 * rows[:, 0] - 2 * rows[:, 0] ** 2 + 0.1 * rows[:, 1]
    found = answers(Question("rest", {"1": 1.0}, "high", given=("0", "2")), rows)
    rest = found.distance(torch.tensor(rows)).numpy()
    for other in (rows[:, 0], rows[:, 0] ** 2, rows[:, 2], rows[:, 2] ** 2):
        assert abs(np.corrcoef(rest, other)[0, 1]) < 1e-9
    assert rest.std() == pytest.approx(0.1, rel=0.05)
    pushed = np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])  # the second is where it belongs
    assert found.nats(torch.tensor(pushed))[0] > 10
    assert found.nats(torch.tensor(pushed))[1] < 3


@pytest.mark.parametrize(
    "question",
    [Question("low", {"0": 1.0, "1": 1.0}, "low"), Question("high", {"0": 1.0}, "high", given=("1",)), Question("both", {"0": 1.0, "1": 1.0})],
    ids=lambda one: one.name,
)  # fmt: skip
def test_p_values_are_uniform_on_clean_rows(question: Question) -> None:
    mixing = np.array([[1, 0.5], [0, 1]])
    found = answers(question, draws(4000, 2) @ mixing)
    p = np.exp(-found.nats(torch.tensor(draws(4000, 2, seed=1) @ mixing)).numpy())
    assert stats.kstest(p, "uniform").statistic < 0.035
    for share in (0.01, 0.05, 0.2):
        assert (p <= share).mean() == pytest.approx(share, abs=4 * (share / 4000) ** 0.5)


def test_questions_about_what_is_not_there() -> None:
    rows = draws(50, 2)
    for question in (Question("a", {"5": 1.0}), Question("a", {"0": 1.0}, "low", given=("7",))):
        with pytest.raises(InputError, match=r"question 'a' asks about [57], which the rows do not have"):
            answers(question, rows)


# --- the estimator ------------------------------------------------------------------------------------


@pytest.fixture
def _as_users_run_it() -> Any:
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@parametrize_with_checks([SharpnessDetector(), SharpnessDetector(fpr=0.2)])
@pytest.mark.usefixtures("_as_users_run_it")
def test_scikit_learn_is_content(estimator: Any, check: Any) -> None:
    check(estimator)


QUESTIONS = (
    Question("low", {"a": 1.0}, "low", given=("b",)),
    Question("both", {"b": 1.0, "c": 1.0}, weight=0.5),
)


def fitted(**settings: Any) -> SharpnessDetector:
    found = SharpnessDetector(QUESTIONS, ("a", "b", "c"), **settings)
    return found.fit(draws(300, 3)).calibrate(draws(200, 3, seed=1))


def test_the_score_is_the_weighted_sum_of_surprises() -> None:
    found, fresh = fitted(), draws(40, 3, seed=2) * 2
    scores = found.curves_(torch.tensor(fresh))
    first, second = (one.nats(scores).numpy() for one in found.answers_)
    np.testing.assert_allclose(found.score_samples(fresh), -(first + 0.5 * second))
    np.testing.assert_allclose(found.surprises(fresh), np.stack([first, 0.5 * second], axis=1))
    np.testing.assert_allclose(found.decision_function(fresh), found.score_samples(fresh) - found.offset_)
    assert ((found.predict(fresh) == -1) == (found.p_values(fresh) <= found.fpr)).all()
    assert set(found.predict(fresh)) == {1, -1}


def test_parameters_clones_and_pickles() -> None:
    found, fresh = fitted(fpr=0.1), draws(40, 3, seed=2)
    assert found.get_params() == {"questions": QUESTIONS, "columns": ("a", "b", "c"), "fpr": 0.1}
    again = clone(found)
    assert again.get_params() == found.get_params()
    assert not hasattr(again, "curves_")
    assert again.set_params(fpr=0.3).fpr == 0.3
    twin = pickle.loads(pickle.dumps(found))
    assert np.array_equal(twin.p_values(fresh), found.p_values(fresh))
    assert (
        again.set_params(fpr=0.1).fit(draws(300, 3)).score_samples(fresh) == found.score_samples(fresh)
    ).all()


def test_tables_lists_and_single_columns() -> None:
    pandas = pytest.importorskip("pandas")
    rows, fresh = draws(200, 2), draws(30, 2, seed=1)
    plain = SharpnessDetector().fit(rows).score_samples(fresh)
    table = SharpnessDetector().fit(pandas.DataFrame(rows, columns=["p", "q"]))
    assert list(table.feature_names_in_) == ["p", "q"]
    assert (table.score_samples(pandas.DataFrame(fresh, columns=["p", "q"])) == plain).all()
    with pytest.raises(ValueError, match="feature names"):
        table.score_samples(pandas.DataFrame(fresh, columns=["q", "p"]))
    assert (SharpnessDetector().fit(rows.tolist()).score_samples(fresh.tolist()) == plain).all()
    alone = SharpnessDetector().fit(rows[:, :1])
    assert alone.score_samples([[0.0]]) > alone.score_samples([[5.0]])
    assert alone.score_samples([[0.0]]) > alone.score_samples([[-5.0]])


def test_columns_are_compared_within_their_class() -> None:
    """Locations that differ by class are taken away, the more the more rows it has."""
    count = 4 * CLASS_PRIOR
    classes = np.repeat([0, 2], count)
    rows = draws(2 * count, 1) + 6 * (classes == 2)[:, None]
    found = SharpnessDetector().fit(rows, classes=classes)
    strange = np.array([[6.0]])  # as common as can be, but not in class 0
    assert found.score_samples(strange, np.array([2]))[0] > found.score_samples(strange, np.array([0]))[0] + 1
    shrunk = found.locations_[:, 0].numpy()
    assert shrunk[1] == 0
    everything = normal_scores(rows)(torch.tensor(rows)).numpy()[:, 0]
    assert shrunk[2] == pytest.approx(np.median(everything[classes == 2]) * 4 / 5, abs=2e-3)


def test_classes_that_were_never_fitted_share_one_location() -> None:
    rows = draws(100, 2)
    found = SharpnessDetector().fit(rows, classes=np.zeros(100, int))
    plain = SharpnessDetector().fit(rows, classes=np.ones(100, int))
    fresh = draws(3, 2, seed=1)
    assert np.isfinite(found.score_samples(fresh, np.array([0, 1, 7]))).all()
    beyond = found.score_samples(fresh, np.array([5, 6, 7]))
    np.testing.assert_allclose(beyond, found.score_samples(fresh, np.array([9, 9, 9])))
    assert np.isfinite(plain.score_samples(fresh, np.array([0, 0, 2]))).all()


def test_fitting_sets_a_threshold_that_promises_nothing() -> None:
    rows = draws(1000, 2)
    found = SharpnessDetector(fpr=0.1).fit(rows)
    assert (found.predict(rows) == -1).mean() == pytest.approx(0.1, abs=0.002)
    with pytest.raises(InputError, match="call calibrate"):
        found.p_values(rows)
    again = found.calibrate(draws(500, 2, seed=1)).fit(rows)
    with pytest.raises(InputError, match="call calibrate"):
        again.p_values(rows)


def test_a_score_is_that_of_its_row() -> None:
    found, fresh = fitted(), draws(50, 3, seed=2)
    together = found.score_samples(fresh)
    np.testing.assert_allclose([found.score_samples(one[None])[0] for one in fresh], together, rtol=1e-12)
    order = np.random.default_rng(0).permutation(50)
    assert (found.score_samples(fresh[order]) == together[order]).all()


def test_strange_rows_on_either_side_are_flagged() -> None:
    found = SharpnessDetector(fpr=0.01).fit(draws(500, 4)).calibrate(draws(500, 4, seed=1))
    for sign in (1, -1):
        assert found.predict(np.full((1, 4), sign * 7.0)).tolist() == [-1]
        assert found.predict(np.full((1, 4), sign * 1e30)).tolist() == [-1]


def test_rows_are_judged_where_they_lie() -> None:
    """On the device of the rows, which for a network on an accelerator is not that of what was fitted."""
    assert fitted().nats(torch.empty(5, 3, dtype=torch.float64, device="meta")).device.type == "meta"
