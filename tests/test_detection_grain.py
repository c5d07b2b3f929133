"""Grain, drift and limits: the image's own columns, the copies' mean, and how much one question may say."""

import math
from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import detection_oracles as twins
from uncannyvalley import ImageDetector, InputError, SharpnessDetector
from uncannyvalley.detect.columns import make_columns
from uncannyvalley.detect.curves import LARGEST
from uncannyvalley.detect.looks import Looker
from uncannyvalley.detect.questions import BEYOND, Question
from uncannyvalley.detect.recipes import GRAIN_LIMIT, GRAINS, recipe_of
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import split
from uncannyvalley.types import OBJECTIVE_GRAD

ALONG = {"grain": "both", "grain_across": "across", "grain_down": "down"}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(channels: int, height: int, width: int) -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * height * width, 3)
    ).double().eval()  # fmt: skip


def read(names: tuple[str, ...], x: Tensor) -> np.ndarray:
    net = network(*x.shape[1:]).to(x.dtype)
    columns = make_columns(names, split(net, x[:1].expand(8, -1, -1, -1)))
    with torch.no_grad():
        return columns.read(Looker(split(net, x[:1].expand(8, -1, -1, -1)), columns.copies)(x)).numpy()


# --- columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 6, 6), (2, 3, 3), (4, 3, 8)])
def test_grain_by_its_definition(shape: tuple[int, ...]) -> None:
    x = images(5, *shape)
    x[3] = x[3] / 255 + 0.4  # steps around a grey level
    x[4] = x[4] / 255 / 50 + 0.4  # and below what counts
    expected = [[twins.grain(one, ALONG[name]) for name in GRAINS] for one in x.numpy()]
    np.testing.assert_allclose(read(GRAINS, x), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(read(GRAINS, x.float()), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_flat_images_have_no_grain_and_grey_ones_none_of_colour(channels: int) -> None:
    """Exactly 0 in float32, whatever the value: rounding must not tell grey images apart."""
    values = torch.linspace(0, 1, 64).view(-1, 1, 1, 1)
    tint = torch.tensor([0.3, 0.77, 0.1]).view(1, 3, 1, 1)[:, :channels]
    assert (read(GRAINS, (values * tint).expand(-1, -1, 6, 6)) == 0).all()
    grey = images(40, 1, 6, 6).float().expand(-1, channels, -1, -1)
    assert (read(GRAINS, grey) == 0).all() == (channels == 3)


def test_grain_sees_channels_that_part_and_not_those_that_move_together() -> None:
    x = images(6, 3, 8, 8) * 0.5 + 0.25
    signs = images(6, 3, 8, 8, seed=1).round() * 2 - 1
    smooth = x.mean(dim=(1, 2, 3), keepdim=True) + (x - x.mean(dim=(1, 2, 3), keepdim=True)) / 100
    before = read(GRAINS, smooth)
    assert (read(GRAINS, smooth + 8 / 255 * signs) > before + 0.5).all()
    np.testing.assert_allclose(read(GRAINS, smooth + 8 / 255 * signs[:, :1]), before)


def test_axes_are_told_apart() -> None:
    rows = images(4, 3, 9, 1).expand(-1, -1, -1, 9)  # stripes: nothing changes along a row
    both, across, down = read(GRAINS, rows).T
    assert (both == 0).all()
    assert (across == 0).all()
    assert (down > 1).all()
    np.testing.assert_allclose(read(GRAINS, rows.mT)[:, [0, 2, 1]], read(GRAINS, rows))


@pytest.mark.parametrize("side", [1, 2])
def test_images_too_small_for_differences_are_refused(side: int) -> None:
    with pytest.raises(InputError, match="3 by 3"):
        read(("grain",), images(4, 3, side, 6))


def test_drift_is_that_of_the_mean_over_copies() -> None:
    x = images(5, 3, 6, 6)
    net = network(3, 6, 6)
    copies = [torch.tensor(np.ascontiguousarray(twins.TWINS[one](x.numpy()))) for one in ("mirror", "left")]
    expected = [
        twins.drift(twins.Row(net, x[i]), [twins.Row(net, one[i]) for one in copies]) for i in range(5)
    ]
    np.testing.assert_allclose(read(("drift@mirror,left",), x)[:, 0], expected, rtol=1e-9)


# --- limits -------------------------------------------------------------------------------------------


def judged(limit: float | None, side: str = "high", weight: float = 1.0) -> SharpnessDetector:
    question = Question("one", {"a": 1.0}, side, weight=weight, limit=limit)
    rows = np.random.default_rng(0).normal(size=(400, 1))
    return SharpnessDetector([question], ["a"]).fit(rows[:200]).calibrate(rows[200:])


@pytest.mark.parametrize("side", ["low", "high", "both"])
@pytest.mark.parametrize("limit", [0.5, 4.0, 60.0])
def test_beyond_its_limit_a_question_counts_a_hundredth(side: str, limit: float) -> None:
    asked = np.linspace(-60, 60, 241)[:, None]
    free, held = judged(None, side).surprises(asked)[:, 0], judged(limit, side, 0.5).surprises(asked)[:, 0]
    np.testing.assert_allclose(held, [0.5 * twins.limited(one, limit) for one in free])
    assert free.max() > limit
    assert held.max() <= 0.5 * (limit + BEYOND * (LARGEST - limit))


@pytest.mark.parametrize("limit", [2.0, 4.0])
def test_an_attacker_sees_which_way_is_down_beyond_the_limit(limit: float) -> None:
    def slopes(found: SharpnessDetector) -> Tensor:
        rows = torch.tensor([[1.0], [4.0], [9.0]], dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(found.nats(rows).sum(), rows)[0][:, 0]

    free, held = slopes(judged(None)), slopes(judged(limit))
    assert held[0] == free[0]
    torch.testing.assert_close(held[1:], free[1:] * BEYOND)
    assert (held > 0).all()


def test_grain_alone_adds_no_more_than_its_limit_and_can_be_lowered() -> None:
    net = network(3, 6, 6)
    smooth = torch.nn.functional.avg_pool2d(images(260, 3, 8, 8), 3, 1)
    detector = ImageDetector(split(net, smooth[:8]), recipe=recipe_of(4))
    detector.fit(smooth[:150], smooth[150:])
    rough = (smooth[:20] + 0.3 * (images(20, 3, 6, 6, seed=3) - 0.5)).clamp(0, 1)
    parts = detector.explain(rough)
    for name in ("grain", "pattern"):
        assert (parts[name] > 0.5 * GRAIN_LIMIT).all()
        assert (parts[name] <= 0.5 * (GRAIN_LIMIT + BEYOND * (LARGEST - GRAIN_LIMIT))).all()

    def grain(probe: Any) -> Tensor:
        look = detector.fitted.looker.at(probe)
        rows = detector.fitted.columns.read(look)
        return detector.estimator.nats(rows, look.predicted)[:, 2:].sum(dim=1)

    prober = Prober(detector.model, rough, torch.zeros(20).long(), objective=grain)
    slope = prober(rough, [OBJECTIVE_GRAD]).objective_grad
    assert slope is not None
    assert (slope.flatten(1) != 0).any(dim=1).all()
    lower = detector.explain((rough - 0.002 * slope.sign()).clamp(0, 1))
    assert (lower["grain"] + lower["pattern"] < parts["grain"] + parts["pattern"]).all()


@pytest.fixture
def _as_users_run_it() -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_as_users_run_it")
@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf])
def test_limits_that_are_none(limit: float) -> None:
    with pytest.raises(InputError, match="limit of question 'one' must be above 0"):
        Question("one", {"a": 1.0}, limit=limit)
