"""Walks that stop at the flip: what is recorded, and what is not."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from test_cost_of_a_walk import cost_of
from uncannyvalley.attacks import early, evading, momentum, pgd
from uncannyvalley.measures import resolve
from uncannyvalley.recording import record_batch, trajectory_columns
from uncannyvalley.types import Probe
from uncannyvalley.walking import Recording
from worlds import CHEAP, curved_world, grey_images, predictions

BALL = {"eps": 0.3, "step_size": 0.01}
MEASURES = ["margin", "log_relative_sharpness", "input_gradient_norm"]


@pytest.fixture(scope="module")
def world() -> tuple[nn.Module, Tensor, Tensor]:
    net, x = curved_world(), grey_images(12)
    return net, x, predictions(net, x)


@pytest.mark.parametrize("make", [pgd, momentum])
@pytest.mark.parametrize("stop", [0.0, 0.1])
def test_rows_up_to_the_stop_are_those_of_the_walk_without_it(make, stop: float, world) -> None:
    whole = uv.record(*world, make(**BALL), steps=40, measures=MEASURES)
    halted = uv.record(*world, make(stop=stop, **BALL), steps=40, measures=MEASURES)
    margin = whole.column("margin")
    done = margin <= -stop
    assert done.any(axis=1).any()
    assert len(set(done.argmax(axis=1))) > 1  # they stop at different steps
    for row, (values, stopped) in enumerate(zip(margin, done, strict=True)):
        last = int(stopped.argmax()) if stopped.any() else len(values) - 1
        for name in (*halted.measures, "adversarial", "label"):
            found = halted.column(name)[row]
            np.testing.assert_array_equal(
                found[: last + 1], whole.column(name)[row, : last + 1], err_msg=name
            )
            assert np.isnan(found[last + 1 :]).all(), name
    assert len(halted.table) == np.isfinite(halted.column("margin")).sum()


def test_early_stops_at_the_flip(world) -> None:
    attack = early(**BALL)
    assert attack.name == "early"
    assert attack.stops is not None
    assert "stop" not in attack.settings  # the name says it, and no option could
    wrong = uv.record(*world, attack, steps=40, measures=CHEAP).column("adversarial")
    assert (np.nansum(wrong, axis=1) <= 1).all()
    assert np.nansum(wrong) >= 6


def test_every_records_the_row_at_which_an_example_stops(world) -> None:
    whole = uv.record(*world, pgd(stop=0.0, **BALL), steps=40, measures=MEASURES)
    thinned = uv.record(*world, pgd(stop=0.0, **BALL), steps=40, measures=MEASURES, every=7)
    for name in MEASURES:
        full, thin = whole.column(name), thinned.column(name)
        for row in range(len(full)):
            last = int(np.isfinite(full[row]).nonzero()[0].max())
            kept = sorted({*range(0, last + 1, 7), last})
            assert np.isfinite(thin[row]).nonzero()[0].tolist() == kept
            np.testing.assert_array_equal(thin[row, kept], full[row, kept])


def test_restarts_and_kept_logits_belong_to_their_rows(world) -> None:
    net, x, y = world
    recorded = uv.record(
        net, x, y, pgd(stop=0.0, random_start=True, **BALL), steps=30, restarts=3, keep="features",
        measures=["margin"], batch_size=5,
    )  # fmt: skip
    table = recorded.table
    rows = [
        tuple(row)
        for row in zip(*(table[name].to_pylist() for name in ("example", "restart", "step")), strict=True)
    ]
    assert rows == sorted(rows)
    logits = torch.tensor(table["logits"].to_pylist())
    labels = torch.tensor(table["label"].to_pylist())
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    margins = logits.gather(1, labels[:, None]).squeeze(1) - others
    np.testing.assert_allclose(margins, table["margin"].to_numpy(), atol=1e-5)
    ends = [np.isfinite(recorded.column("margin", restart=one)).sum(axis=1) for one in range(3)]
    assert any((ends[0] != other).any() for other in ends[1:])


def test_an_image_that_is_wrong_already_has_one_row(world) -> None:
    net, x, y = world
    recorded = uv.record(net, x, (y + 1) % 5, pgd(stop=0.0, **BALL), steps=5, measures=CHEAP)
    assert len(recorded.table) == len(x)
    assert recorded.column("loss").shape == (len(x), 6)


def test_targeted_it_stops_in_the_target(world) -> None:
    net, x, y = world
    target = (y + 1) % 5
    attack = pgd(eps=1.0, step_size=0.02, targeted=True, stop=0.0)
    recorded = uv.record(net, x, y, attack, steps=80, target=target, measures=CHEAP)
    predicted = recorded.column("predicted")
    reached = predicted == target.numpy()[:, None]
    assert reached.any(axis=1).sum() >= 3
    for row in range(len(x)):
        steps = reached[row].nonzero()[0]
        if len(steps):
            assert np.isnan(predicted[row, steps[0] + 1 :]).all()
        else:
            assert np.isfinite(predicted[row]).all()


def test_evading_stops_where_both_hold(world) -> None:
    recorded = uv.record(*world, evading(stop=0.0, **BALL), steps=40, measures=["log_relative_sharpness"])
    sharpness, wrong = recorded.column("log_relative_sharpness"), recorded.column("adversarial")
    met = (wrong == 1) & (np.abs(sharpness - sharpness[:, :1]) <= 1)
    assert met.any(axis=1).sum() >= 6
    for row in range(len(met)):
        if met[row].any():
            assert np.isnan(sharpness[row, met[row].argmax() + 1 :]).all()


def test_the_walk_ends_with_the_last_row_that_stops() -> None:
    """0.3 flips all of them well before the twentieth step of 0.1."""
    forwards, backwards = cost_of(pgd(eps=0.5, step_size=0.1, stop=0.0), CHEAP)
    assert forwards == backwards < 15


def test_progress_is_whole_all_the_same(world) -> None:
    done: list[int] = []
    uv.record(
        *world,
        pgd(eps=0.5, step_size=0.2, stop=0.0),
        steps=30,
        restarts=2,
        measures=CHEAP,
        progress=done.append,
    )
    assert sum(done) == 12 * 31 * 2


def test_observers_see_no_measure_after_the_stop(world) -> None:
    net, x, y = world
    seen: list[tuple[int, np.ndarray]] = []

    class Watch:
        def see(self, restart: int, row: int, probe: Probe, values: dict[str, np.ndarray]) -> None:
            assert probe.recorded is not None
            np.testing.assert_array_equal(np.isnan(values["margin"]), ~probe.recorded.numpy())
            seen.append((row, probe.recorded.numpy()))

    model, recording = uv.split(net, x), Recording(30, resolve(["margin"]))
    attack = pgd(stop=0.0, **BALL)
    schema = trajectory_columns(recording, model, attack)
    batch = record_batch(model, x, y, range(12), attack, recording, schema=schema, observer=Watch())
    assert sum(mask.sum() for _, mask in seen) == batch.num_rows
    assert not all(mask.all() for _, mask in seen)


def test_phases_read_walks_that_stop(world) -> None:
    trajectory = uv.record(*world, early(**BALL), steps=40)
    whole = uv.record(*world, pgd(**BALL), steps=40)
    halted, full = (uv.phases(one) for one in (trajectory, whole))
    np.testing.assert_array_equal(halted.flip_step, full.flip_step)
    assert "label flipped" in str(halted.summary())


def test_runs_without_a_stop_keep_their_key() -> None:
    assert "stop" not in pgd(**BALL).settings
    assert "stop" not in momentum(**BALL).settings
    assert pgd(stop=0.0, **BALL).settings["stop"] == 0.0
