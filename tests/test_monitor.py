"""The monitor of a stream: an alarm whose false-alarm rate holds over any length of time, and live rates."""

import json
import threading
from collections.abc import Iterator
from itertools import pairwise

import jaxtyping
import numpy as np
import pytest
from scipy.stats import binom, kstest

from recorded_columns import NAMES, recorded
from uncannyvalley import SharpnessDetector
from uncannyvalley.detect.recipes import recipe_of
from uncannyvalley.detect.serving.martingale import DENSITIES, STAKES, Martingale
from uncannyvalley.detect.serving.monitor import LiveRate, Monitor
from uncannyvalley.detect.serving.ranks import CELLS, Ranks, cell_of
from uncannyvalley.errors import InputError


@pytest.fixture(autouse=True)
def _no_shape_checks() -> Iterator[None]:
    """A monitor has no tensors, and streams are long."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def normal(seed: int, count: int, mean: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, size=count)


def delay(monitor: Monitor, scores: np.ndarray) -> int | None:
    """Scores until the alarm rings."""
    for i, score in enumerate(scores):
        monitor.update(score)
        if monitor.alarm:
            return i + 1
    return None


def test_cells_ascend_with_the_score() -> None:
    scores = [-np.inf, -1e30, -2.0, -1.99, -1e-20, 0.0, 1e-30, 0.5, 1.0, 1.01, 700.0, 1e39, np.inf]
    cells = [cell_of(one) for one in scores]
    assert all(a <= b for a, b in pairwise(cells))
    assert cell_of(-2.0) < cell_of(-1.99) < cell_of(0.0) < cell_of(1.0) < cell_of(1.01)
    assert min(cells) >= 0
    assert max(cells) < CELLS


def test_ranks_are_those_of_sorting() -> None:
    ranks, past = Ranks(), []
    for score in np.random.default_rng(0).integers(-4, 5, size=200).astype(float).tolist():
        above, ties = ranks.above_and_ties(score)
        assert (above, ties) == (sum(one > score for one in past), past.count(score))
        ranks.add(score)
        past.append(score)
    assert Ranks(ranks.counts()).above_and_ties(1.0) == ranks.above_and_ties(1.0)


@pytest.mark.parametrize("ties", [False, True])
def test_online_p_values_are_uniform_and_independent(ties: bool) -> None:
    """Also where most scores are equal, and however skewed they are."""
    scores = (
        np.random.default_rng(3).poisson(0.7, 2500).astype(float)
        if ties
        else np.exp(normal(3, 2500, spread=3))
    )
    p = np.array(Monitor(scores[:500].tolist()).extend(scores[500:].tolist()))
    assert kstest(p, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(p[1:], p[:-1])[0, 1]) < 0.06
    assert p.min() > 0
    assert p.max() <= 1


def test_bets_are_fair() -> None:
    """Each density has mean 1 over uniform p, or less, so wealth is a supermartingale from 1."""
    u = (np.arange(4000) + 0.5) / 4000
    for _, density in DENSITIES:
        halves = [  # p = u^10 / 2 looks closely at both ends
            np.mean([density(p) * 5 * v**9 for p, v in zip(places, u, strict=True)])
            for places in (u**10 / 2, 1 - u**10 / 2)
        ]
        assert 0.98 < sum(halves) < 1.0005
    assert max(STAKES) <= 1
    assert Martingale().log_wealth == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("delta", [0.3, 0.05])
def test_the_alarm_rings_on_clean_streams_at_most_as_often_as_stated(delta: float) -> None:
    streams, length = 60, 150
    rang = 0
    for seed in range(streams):
        scores = normal(seed, 60 + length)
        rang += delay(Monitor(scores[:60], delta=delta, seed=seed), scores[60:]) is not None
    assert rang <= binom.ppf(0.999, streams, delta)


def test_scores_of_a_real_network_ring_at_most_as_often_as_stated() -> None:
    """In random orders of recorded images, calibration and stream are exchangeable; a quarter that is adversarial is not."""
    rows, classes, _ = recorded()
    recipe = recipe_of(4)
    rows = rows[:, [NAMES.index(one) for one in recipe.columns]]
    found = SharpnessDetector(recipe.questions, recipe.columns).fit(rows[:239], classes=classes[:239])
    scores = -found.score_samples(rows[239:], classes[239:])
    draw, delta, rang, noticed = np.random.default_rng(0), 0.1, 0, 0
    for seed in range(40):
        past, stream = np.split(draw.permutation(scores), [200])
        rang += delay(Monitor(past.tolist(), delta=delta, seed=seed), stream) is not None
        stream[draw.random(len(stream)) < 0.25] += 8.0
        noticed += delay(Monitor(past.tolist(), delta=delta, seed=seed), stream) is not None
    assert rang <= binom.ppf(0.999, 40, delta)
    assert noticed >= 36


def test_a_martingale_without_adaption_would_ring() -> None:
    """The bound above is not empty: the same bets on ranks among calibration scores alone, which stay off, ring often."""
    rang = 0
    for seed in range(20):
        past, scores = np.sort(normal(seed, 20)), normal(1000 + seed, 300)
        bet = Martingale()
        p = (20 - np.searchsorted(past, scores) + np.random.default_rng(seed).random(300)) / 21
        rang += max(bet.update(one) for one in p) > -np.log(0.05)
    assert rang > 5


@pytest.mark.parametrize(
    ("drifted", "within", "drift"),
    [
        (normal(1, 900, 1.0), 100, "scores rise"),
        (normal(2, 900, -1.0), 100, "scores fall"),
        (normal(3, 900, 0.0, 2.0), 150, "scores spread"),
        (normal(4, 900, 0.0, 0.3), 150, "scores narrow"),
        (np.where(np.arange(900) % 5 == 0, 6.0, normal(5, 900)), 150, "scores rise"),
        (np.where(np.arange(900) % 20 == 0, 6.0, normal(6, 900)), 700, "scores rise, scores spread"),
    ],
)
def test_drift_is_found_soon_after_a_long_clean_stream(drifted: np.ndarray, within: int, drift: str) -> None:
    monitor = Monitor(normal(7, 800), delta=0.01, seed=1)
    monitor.extend(normal(8, 1000).tolist())
    assert not monitor.alarm
    found = delay(monitor, drifted)
    assert found is not None
    assert found <= within
    assert monitor.drift in drift
    assert monitor.rang_at == 1000 + found


def test_without_calibration_the_stream_is_compared_with_its_own_past() -> None:
    monitor = Monitor(delta=0.01)
    monitor.extend(normal(0, 500).tolist())
    assert not monitor.alarm
    assert delay(monitor, normal(1, 300, 2.0)) is not None


def test_restart_turns_the_alarm_off_and_keeps_the_past() -> None:
    monitor = Monitor(normal(0, 500))
    monitor.extend(normal(1, 200, 2.0).tolist())
    assert monitor.alarm
    monitor.restart()
    assert (monitor.alarm, monitor.drift, monitor.seen) == (False, None, 200)
    assert monitor.log_wealth == pytest.approx(0, abs=1e-12)


def test_a_saved_monitor_goes_on_as_if_it_had_never_stopped(tmp_path: object) -> None:
    first = Monitor(normal(0, 300).round(1).tolist(), fpr=0.1, delta=0.02, window=30, seed=5)
    first.extend(normal(1, 100).round(1).tolist(), [False] * 90 + [True] * 10)
    first.update(1.0, True, clean=True)
    path = f"{tmp_path}/monitor.json"
    first.save(path)
    second = Monitor.load(path)
    scores = normal(2, 200, 1.5).round(1).tolist()
    assert first.extend(scores) == second.extend(scores)
    assert first.state() == second.state()
    assert second.alarm
    assert (second.flag_rate, second.false_positive_rate) == (
        first.flag_rate, LiveRate.of(1, 1, 0.1),
    )  # fmt: skip
    assert json.loads(json.dumps(second.state())) == json.loads(json.dumps(first.state()))
    unused = Monitor.restored(json.loads(json.dumps(Monitor(seed=3).state())))
    assert unused.extend(scores) == Monitor(seed=3).extend(scores)


def test_rates_are_those_of_the_window_with_exact_intervals() -> None:
    monitor = Monitor(fpr=0.05, window=100)
    for i in range(300):
        monitor.update(float(i % 7), i >= 200 and i % 4 == 0, clean=i % 2 == 1)
    rate = monitor.flag_rate
    assert (rate.images, rate.flagged, rate.share, rate.promised) == (100, 25, 0.25, 0.05)
    assert binom.sf(24, 100, rate.low) == pytest.approx(0.025)
    assert binom.cdf(25, 100, rate.high) == pytest.approx(0.025)
    assert rate.is_above_promise
    clean = monitor.false_positive_rate
    assert (clean.images, clean.flagged, clean.low, clean.is_above_promise) == (100, 0, 0.0, False)
    assert clean.high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert (LiveRate.of(0, 0, 0.05).low, LiveRate.of(0, 0, 0.05).high) == (0.0, 1.0)
    assert LiveRate.of(3, 3, 0.05).high == 1.0


def test_threads_lose_no_score() -> None:
    monitor = Monitor(normal(0, 50))
    work = [threading.Thread(target=monitor.extend, args=(normal(seed, 300).tolist(),)) for seed in range(4)]
    for one in work:
        one.start()
    for one in work:
        one.join()
    assert monitor.seen == 1200
    assert sum(dict(monitor.state()["cells"]).values()) == 1250


def test_bad_input_is_refused(tmp_path: object) -> None:
    with pytest.raises(InputError, match="no NaN"):
        Monitor().update(float("nan"))
    with pytest.raises(InputError, match="one number at a time"):
        Monitor().update("high")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="false-alarm rate"):
        Monitor(delta=1.0)
    with pytest.raises(InputError, match="no saved monitor"):
        Monitor.load(f"{tmp_path}/missing.json")
    with pytest.raises(InputError, match="no state of a monitor"):
        Monitor.restored({"format": 1})
    with pytest.raises(InputError, match="format 7"):
        Monitor.restored({"format": 7})
