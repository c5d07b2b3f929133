"""Replays at a temperature: against the recording, and against the network with its head divided by T on the same points."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from replay_cases import STEPS, along, assert_same_columns, digits_world, remembered, with_head
from uncannyvalley.attacks import momentum, pgd
from uncannyvalley.head import Head
from uncannyvalley.measures import measure, registry
from uncannyvalley.replaying import kept_walk
from uncannyvalley.replaying.replayed_walk import check_temperature
from uncannyvalley.trajectory import Trajectory
from uncannyvalley.types import Probe

NEED_THE_NETWORK = {"input_gradient_norm", "log_input_gradient_norm"}

World = tuple[nn.Module, Tensor, Tensor, float]


@pytest.fixture(scope="module")
def digits() -> World:
    return (*digits_world(), 0.4)


@pytest.fixture(scope="module")
def resnet(correct_cifar: tuple[nn.Module, Tensor, Tensor]) -> World:
    net, x, y = correct_cifar
    return net, x[:8], y[:8], 8 / 255


def divided(temperature: float) -> Callable[[Head], Head]:
    return lambda head: Head(head.weight / temperature, head.bias / temperature)


@pytest.mark.parametrize("world", ["digits", "resnet"])
def test_at_temperature_one_it_is_the_recording(world: str, request: pytest.FixtureRequest) -> None:
    """float32 networks have float32 logits: keeping them loses nothing, and only sums in another order differ."""
    net, x, y, eps = request.getfixturevalue(world)
    _, recorded, model = remembered(net, x, y, eps=eps, keep="logits")
    replayed = uv.replay(recorded, temperature=1, recorded_head=model)
    assert set(recorded.measures) - set(replayed.measures) == NEED_THE_NETWORK
    assert_same_columns(replayed, recorded, atol=1e-12)


def test_a_float64_network_is_kept_to_float32(digits: World) -> None:
    """Logits of 20 nats are rounded by 1e-6 where they are kept, and log κ is off by no more than a few of those."""
    net, x, y, eps = digits
    _, recorded, model = remembered(net, x, y, eps=eps, keep="logits", dtype=torch.float64)
    replayed = uv.replay(recorded, temperature=1, recorded_head=model)
    assert_same_columns(replayed, recorded, atol=1e-5)
    off = np.abs(replayed.column("log_relative_sharpness") - recorded.column("log_relative_sharpness"))
    assert off.max() > 0


@pytest.mark.parametrize("temperature", [0.25, 3.0])
@pytest.mark.parametrize("world", ["digits", "resnet"])
def test_a_temperature_is_the_network_with_its_head_divided(
    world: str, temperature: float, request: pytest.FixtureRequest
) -> None:
    net, x, y, eps = request.getfixturevalue(world)
    path, recorded, model = remembered(net, x, y, eps=eps, keep="logits", dtype=torch.float64)
    truth = along(path, with_head(net, divided(temperature)), x.double(), y)
    replayed = uv.replay(recorded, temperature=temperature, recorded_head=model)
    assert_same_columns(replayed, truth, atol=5e-5)
    change = replayed.column("log_relative_sharpness") - recorded.column("log_relative_sharpness")
    assert np.abs(change).max() > 1  # the temperature did something


def test_features_serve_as_well_as_logits(digits: World) -> None:
    net, x, y, eps = digits
    _, logits, model = remembered(net, x, y, eps=eps, keep="logits")
    _, features, _ = remembered(net, x, y, eps=eps, keep="features")
    found = [uv.replay(one, temperature=2, recorded_head=model) for one in (logits, features)]
    assert_same_columns(*found, atol=1e-12)


def test_half_and_double_are_the_recording_again(digits: World) -> None:
    """W/2 at temperature ½: the two changes take each other back."""
    net, x, y, eps = digits
    _, recorded, model = remembered(net, x, y, eps=eps)
    halved = Head(model.head.weight.double() / 2, model.head.bias.double() / 2)
    replayed = uv.replay(recorded, temperature=0.5, head=halved)
    assert_same_columns(replayed, recorded, atol=2e-5)
    assert replayed.about["replayed"]["head"] == "given"


def test_hot_heads_leave_norm_and_geometry(digits: World) -> None:
    """As T grows the softmax turns uniform: Gini stops moving, and log κ + 2 log T with it, but for |φ|."""
    net, x, y, eps = digits
    _, recorded, model = remembered(net, x, y, eps=eps)
    hot = uv.replay(recorded, temperature=1e5, recorded_head=model)
    assert np.ptp(hot.column("log_gini")) < 1e-6
    assert np.ptp(hot.column("log_geometry")) < 1e-3
    left = hot.column("log_relative_sharpness") - 2 * np.log(hot.column("feature_norm"))
    assert np.ptp(left) < 1e-3


def test_phases_of_a_replay_are_read_as_any(digits: World) -> None:
    net, x, y, eps = digits
    _, recorded, model = remembered(net, x, y, eps=eps)
    noise = uv.attacks.controls_of(pgd(eps=eps, step_size=eps / 8))[0]
    control = uv.record(model, x, y, noise, steps=STEPS, keep="logits")
    walks = [uv.replay(one, temperature=0.5, recorded_head=model) for one in (recorded, control)]
    found = uv.phases(walks[0], walks[1:])
    before = uv.phases(recorded)
    np.testing.assert_array_equal(found.flip_step, before.flip_step)
    assert np.median(found.ridge_height) > 1.5 * np.median(before.ridge_height)
    low, high = walks[0].about["log_geometry_band"]
    geometry = walks[0].column("log_geometry")
    assert low - 1e-9 <= geometry.min() <= geometry.max() <= high + 1e-9
    assert "noise" in str(found.summary())


def test_restarts_random_starts_targets_and_gaps_are_kept(digits: World) -> None:
    net, x, y, eps = digits
    model = uv.split(net, x[:4])
    attack = pgd(eps=eps, step_size=eps / 8, random_start=True, targeted=True)
    recorded = uv.record(
        model, x[:8], y[:8], attack, steps=7, restarts=2, every=3, keep="logits", ids=range(40, 48), batch_size=3
    )  # fmt: skip
    replayed = uv.replay(recorded, temperature=1, recorded_head=model)
    assert replayed.examples.tolist() == list(range(40, 48))
    for restart in (0, 1):
        for name in ("log_relative_sharpness", "loss", "target", "distance_linf", "predicted"):
            np.testing.assert_allclose(
                replayed.column(name, restart), recorded.column(name, restart), atol=1e-12, err_msg=name
            )
    assert np.isnan(replayed.column("loss")).any()


def test_blocks_of_any_size_are_the_same(digits: World, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, y, eps = digits
    _, recorded, model = remembered(net, x, y, eps=eps)
    whole = uv.replay(recorded, temperature=2, recorded_head=model)
    monkeypatch.setattr(kept_walk, "MAX_BLOCK_ELEMENTS", 7 * 32)
    assert_same_columns(uv.replay(recorded, temperature=2, recorded_head=model), whole, atol=1e-12)
    blocks = list(kept_walk.kept_walk(recorded, model).blocks())
    assert max(one.num_rows for one in blocks) <= 7
    np.testing.assert_array_equal(
        np.concatenate([kept_walk.kept_column(one, "logits") for one in blocks]),
        np.stack(recorded.table["logits"].to_numpy()),
    )


def test_features_that_vanish_have_no_sharpness(digits: World) -> None:
    net, x, y, eps = digits
    _, recorded, model = remembered(net, x[:4], y[:4], eps=eps)
    place = recorded.table.schema.get_field_index("feature_norm")
    zero = recorded.table.set_column(
        place, recorded.table.schema.field(place), [np.zeros(recorded.table.num_rows)]
    )
    replayed = uv.replay(Trajectory(zero), temperature=2, recorded_head=model)
    assert np.isneginf(replayed.column("log_relative_sharpness")).all()


def test_own_measures_are_replayed_if_they_read_what_was_kept(
    digits: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @measure("norm_over_gap", unit="log", order=0)
    def norm_over_gap(probe: Probe) -> Tensor:
        return probe.log_feature_norm - probe.softmax.gap.log()

    @measure("brightness", unit="pixels", order=0)
    def brightness(probe: Probe) -> Tensor:
        return probe.x.flatten(1).mean(dim=1)

    @measure("brightest", unit="pixels", order=0)
    def brightest(probe: Probe) -> Tensor:
        return torch.full_like(probe.log_feature_norm, probe.x.max().item())

    net, x, y, eps = digits
    _, recorded, model = remembered(net, x[:6], y[:6], eps=eps, keep="logits")
    replayed = uv.replay(recorded, temperature=1, recorded_head=model)
    np.testing.assert_allclose(replayed.column("norm_over_gap"), recorded.column("norm_over_gap"))
    left_out = replayed.about["replayed"]["left_out"]
    assert set(left_out) == {*NEED_THE_NETWORK, "brightness", "brightest"}
    assert "not kept" in left_out["brightness"]
    assert "meta" in left_out["brightest"]
    assert "brightness" not in replayed.measures


def test_inner_layers_and_unknown_measures_are_left_out(digits: World) -> None:
    net, x, y, eps = digits
    model = uv.split(net, x[:4])
    name = next(one for one, module in net.named_modules() if isinstance(module, nn.Conv2d))
    measures = ["log_relative_sharpness", f"log_relative_sharpness@{name}"]
    attack = momentum(eps=eps, step_size=eps / 8)
    recorded = uv.record(model, x[:4], y[:4], attack, steps=2, keep="logits", measures=measures)
    replayed = uv.replay(recorded, temperature=3, recorded_head=model)
    assert "inner layer" in replayed.about["replayed"]["left_out"][measures[1]]
    assert replayed.measures[: len(recorded.measures) - 1] == tuple(
        one for one in recorded.measures if "@" not in one
    )
    few = uv.replay(recorded, temperature=3, recorded_head=model, measures=["loss"])
    assert set(few.measures) == {"distance_linf", "distance_l2", "feature_norm", "loss"}


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf"), 1e9, True, "2"])
def test_temperatures_that_are_none(digits: World, temperature: object) -> None:
    net, x, y, eps = digits
    _, recorded, model = remembered(net, x[:2], y[:2], eps=eps, keep="logits")
    with pytest.raises(uv.InputError, match="temperature must be a number between"):
        check_temperature(temperature)
    with pytest.raises(uv.InputError, match="say what to replay with"):
        uv.replay(recorded, recorded_head=model)


def test_walks_that_cannot_be_replayed(digits: World) -> None:
    net, x, y, eps = digits
    model = uv.split(net, x[:4])
    bare = uv.record(model, x[:2], y[:2], pgd(eps=eps, step_size=eps), steps=1)
    with pytest.raises(uv.InputError, match=r"kept no logits.*--keep logits"):
        uv.replay(bare, temperature=2, recorded_head=model)
    _, recorded, _ = remembered(net, x[:2], y[:2], eps=eps, keep="logits")
    with pytest.raises(uv.InputError, match="needs the head that the walk was recorded with"):
        uv.replay(recorded, temperature=2)
    fewer = Head(model.head.weight[:-1], model.head.bias[:-1])
    with pytest.raises(uv.InputError, match="recorded_head has 9 classes, the kept logits 10"):
        uv.replay(recorded, temperature=2, recorded_head=fewer)
    with pytest.raises(uv.InputError, match="needs the features of each step"):
        uv.replay(recorded, head="etf", recorded_head=model)
    replayed = uv.replay(recorded, temperature=2, recorded_head=model)
    with pytest.raises(uv.InputError, match="is a replay itself"):
        uv.replay(replayed, temperature=2, recorded_head=model)
