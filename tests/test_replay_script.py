"""The page's replay in a browser against Python's, on real walks and on gaps that no real network has."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

import uncannyvalley
from cases import GAPS
from chromium import chromium
from uncannyvalley import data, zoo
from uncannyvalley.head import Head
from uncannyvalley.measures import read, resolve
from uncannyvalley.replaying.stored_probe import at_temperature
from uncannyvalley.splitting import SplitModel
from uncannyvalley.trajectory import Trajectory
from uncannyvalley.types import Probe

__all__ = ["chromium"]  # a fixture

SCRIPT = Path(uncannyvalley.__file__).parent / "report" / "scripts" / "replay.js"
TEMPERATURES = (0.1, 0.3, 1.0, 2.5, 10.0)
LIMIT = 1e-4
NAMES = {
    "logSharpness": "log_relative_sharpness", "loss": "loss", "confidence": "confidence", "logGini": "log_gini",
}  # fmt: skip

CALL = """
([walk, temperature]) => {
  const typed = {
    ...walk,
    logits: Float32Array.from(walk.logits), logNorm: Float32Array.from(walk.logNorm),
    logPair: Float64Array.from(walk.logPair), labels: Int32Array.from(walk.labels),
  };
  const found = replayWalk(typed, temperature);
  const phases = replayPhases({ ...typed, ...found });
  const plain = (one) => Object.fromEntries(Object.entries(one).map(([name, values]) => [name, Array.from(values)]));
  return { ...plain(found), phases: plain(phases) };
}
"""


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Page:
    """A page that knows the functions of replay.js and nothing else."""
    page = chromium.new_page()
    page.add_script_tag(content=SCRIPT.read_text())
    return page


class Recorded:
    """A walk with kept logits, and what the page is given of it."""

    def __init__(self, trajectory: Trajectory, model: SplitModel) -> None:
        self.trajectory, self.model = trajectory, model
        count, rows, classes = len(trajectory), trajectory.rows, model.classes
        table = trajectory.table
        example = np.searchsorted(trajectory.examples, table["example"].to_numpy())
        logits = np.full((count, rows, classes), np.nan, np.float32)
        logits[example, table["step"].to_numpy()] = np.stack(table["logits"].to_numpy())
        with np.errstate(divide="ignore"):
            pairs = np.log(model.head.squared_distances.numpy() / 2)
        self.given: dict[str, Any] = {
            "logits": logits.ravel().tolist(), "logPair": pairs.ravel().tolist(),
            "logNorm": np.log(trajectory.column("feature_norm")).ravel().tolist(),
            "labels": trajectory.column("label")[:, 0].astype(int).tolist(),
            "count": count, "rows": rows, "classes": classes,
        }  # fmt: skip


def _recorded(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, every: int) -> Recorded:
    model = uncannyvalley.split(net, x[:4])
    attack = uncannyvalley.attacks.pgd(eps=eps, step_size=eps / 10)
    names = [*NAMES.values(), "log_geometry"]
    walk = uncannyvalley.record(model, x, y, attack, steps=20, keep="logits", every=every, measures=names)
    return Recorded(walk, model)


@pytest.fixture(scope="module")
def digits() -> Recorded:
    images = data.load("digits")
    return _recorded(zoo.load("demo"), images[:48], images.labels[:48], 0.4, every=1)


@pytest.fixture(scope="module")
def gappy_digits() -> Recorded:
    """Only every third row is there; the others are NaN."""
    images = data.load("digits")
    return _recorded(zoo.load("demo"), images[:48], images.labels[:48], 0.4, every=3)


@pytest.fixture(scope="module")
def resnet(correct_cifar: tuple[torch.nn.Module, torch.Tensor, torch.Tensor]) -> Recorded:
    net, x, y = correct_cifar
    return _recorded(net, x[:24], y[:24], 8 / 255, every=1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("world", ["digits", "gappy_digits", "resnet"])
def test_numbers_are_those_of_python(
    page: Page, world: str, temperature: float, request: pytest.FixtureRequest
) -> None:
    recorded: Recorded = request.getfixturevalue(world)
    replayed = uncannyvalley.replay(
        recorded.trajectory, temperature=temperature, recorded_head=recorded.model
    )
    found = page.evaluate(CALL, [recorded.given, temperature])
    for name, measure in NAMES.items():
        wanted = replayed.column(measure).ravel()
        np.testing.assert_allclose(
            found[name], wanted, rtol=1e-6, atol=LIMIT if "log" in name else 1e-12, err_msg=name
        )
    predicted = replayed.column("predicted").ravel()
    np.testing.assert_array_equal(found["predicted"], np.where(np.isnan(predicted), -1, predicted))
    if world == "gappy_digits":
        assert 0.5 < np.isnan(found["logSharpness"]).mean() < 0.7  # a third is recorded, and the last row


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("world", ["digits", "gappy_digits", "resnet"])
def test_phases_are_those_of_python(
    page: Page, world: str, temperature: float, request: pytest.FixtureRequest
) -> None:
    recorded: Recorded = request.getfixturevalue(world)
    replayed = uncannyvalley.replay(
        recorded.trajectory, temperature=temperature, recorded_head=recorded.model
    )
    wanted = uncannyvalley.phases(replayed)
    found = page.evaluate(CALL, [recorded.given, temperature])["phases"]
    for name, column in (("flip", "flip_step"), ("ridge", "ridge_step"), ("valley", "valley_step")):
        np.testing.assert_array_equal(found[name], np.nan_to_num(wanted.column(column), nan=-1), err_msg=name)
    np.testing.assert_allclose(found["height"], wanted.ridge_height, atol=LIMIT)
    np.testing.assert_allclose(found["depth"], wanted.depth, atol=LIMIT)


def test_a_real_walk_has_gaps_of_hundreds_of_nats(resnet: Recorded) -> None:
    cold = uncannyvalley.replay(resnet.trajectory, temperature=0.1, recorded_head=resnet.model)
    assert np.nanmax(cold.column("logit_gap")) > 200
    assert np.nanmin(cold.column("log_relative_sharpness")) < -200


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gaps_up_to_two_thousand_nats(page: Page, temperature: float) -> None:
    generator = torch.Generator().manual_seed(7)
    rows, classes, width = len(GAPS), 6, 5
    logits = 3 * torch.randn(rows, classes, generator=generator)
    logits[:, 2] = logits.max(dim=1).values + torch.tensor(GAPS)  # a gap of 0 is a tie: the first class wins
    weight, features = (
        torch.randn(classes, width, generator=generator),
        torch.randn(rows, width, generator=generator),
    )
    features[3] = 0.0  # κ vanishes with the features
    head = Head(weight, None)
    labels = torch.full((rows,), 4)
    used = at_temperature(head, temperature)
    probe = Probe(
        features, features, labels, None, labels, features.double(), logits.double() / temperature, used
    )
    wanted = read(probe, resolve([*NAMES.values()]))
    with np.errstate(divide="ignore"):
        pairs = np.log(head.squared_distances.numpy() / 2)
    given = {
        "logits": logits.flatten().tolist(), "logNorm": features.double().norm(dim=1).log().tolist(),
        "logPair": pairs.ravel().tolist(), "labels": [4], "count": 1, "rows": rows, "classes": classes,
    }  # fmt: skip
    found = page.evaluate(CALL, [given, temperature])
    for name, measure in NAMES.items():
        np.testing.assert_allclose(found[name], wanted[measure], rtol=1e-6, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(found["predicted"], probe.predicted)
    assert found["logSharpness"][3] == -np.inf


def test_rows_that_hold_no_number_stay_empty(page: Page) -> None:
    nothing = float("nan")
    given = {
        "logits": [1.0, 2.0, nothing, 0.0, nothing, nothing, 5.0, 1.0], "logNorm": [0.0] * 4, "logPair": [-np.inf, 0, 0, -np.inf],
        "labels": [1, 0], "count": 2, "rows": 2, "classes": 2,
    }  # fmt: skip
    found = page.evaluate(CALL, [given, 1.0])
    assert found["predicted"] == [1, -1, -1, 0]
    assert np.isnan(found["loss"]).tolist() == [False, True, True, False]
    assert found["phases"]["ridge"] == [0, 1]
    assert found["phases"]["height"][0] == 0
