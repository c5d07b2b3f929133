"""Attacks that keep a score within a band: linear worlds whose answer is known, and a real network."""

import json

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from test_cost_of_a_walk import cost_of
from uncannyvalley import measures
from uncannyvalley.attacks import evading, orthogonal, pgd
from uncannyvalley.errors import InputError
from uncannyvalley.probe import Prober
from uncannyvalley.types import Attack, Probe
from worlds import CHEAP, NORMS, at_distance, curved_world, grey_images, linear_world, predictions

RADIUS = 0.04
GAPS = (1e-3, 1.0, 30.0, 90.0)
BALL = {"eps": 0.1, "step_size": 0.02}


def steep_world() -> tuple[nn.Module, Tensor, Tensor]:
    """Two classes, 16 images about 7 nats sure, whose boundary lies RADIUS away in linf."""
    net = linear_world(2, seed=3)
    with torch.no_grad():
        net[1].weight.mul_(10)
        net[1].bias.mul_(10)
    x = at_distance(net, grey_images(16), RADIUS, "linf")
    return net, x, predictions(net, x)


def walked(net: nn.Module, x: Tensor, y: Tensor, attack: Attack, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Change of log κ since the clean image, and whether the label is wrong: (examples, rows)."""
    recorded = uv.record(net, x, y, attack, steps=steps, measures=["log_relative_sharpness"])
    sharpness = recorded.column("log_relative_sharpness")
    return sharpness - sharpness[:, :1], recorded.column("adversarial") == 1


# --- a boundary with a known way back to the clean sharpness ---------------------------------------------


@pytest.mark.parametrize("make", [evading, lambda **ball: orthogonal(strategy="selective", **ball)])
def test_the_band_is_held_where_the_ball_reaches_the_mirrored_margin_and_nowhere_else(make) -> None:
    """κ = |φ|² p(1 − p)|w_0 − w_1|², so fooled at clean κ means the clean margin mirrored, twice as far as the flip."""
    net, x, y = steep_world()
    change, wrong = walked(net, x, y, make(eps=2.4 * RADIUS, step_size=RADIUS / 6), 40)
    assert (wrong & (np.abs(change) <= 1))[:, -1].all()
    change, wrong = walked(net, x, y, make(eps=1.5 * RADIUS, step_size=RADIUS / 6), 40)
    assert wrong[:, -1].all()
    assert (change[:, -1] > 1).all()
    change, wrong = walked(net, x, y, pgd(eps=2.4 * RADIUS, step_size=RADIUS / 6), 40)
    assert (change[:, -1] < -1).all()  # what the attack would do otherwise


def test_a_band_above_the_ridge_is_sought_along_the_boundary_without_losing_the_label() -> None:
    net, x, y = steep_world()
    attack = evading(eps=2.4 * RADIUS, step_size=RADIUS / 5.5, low=50.0, high=51.0)
    _, wrong = walked(net, x, y, attack, 30)
    flips = wrong.argmax(axis=1)
    for row, flip in enumerate(flips):
        assert wrong[row, flip:].all()
    ridge = np.log(0.25)  # of p(1 − p)
    recorded = uv.record(net, x, y, attack, steps=30, measures=["log_gini"]).column("log_gini") - np.log(2)
    assert (recorded[:, -1] > ridge - 0.05).all()  # not exactly there: |φ| may grow a little beside it


def test_an_absolute_band_of_a_callable_score_with_a_margin() -> None:
    net, x, y = steep_world()

    def doubt(probe: Probe) -> Tensor:
        return -probe.softmax.gap

    attack = evading(eps=0.3, step_size=0.01, score=doubt, low=-4.0, high=-3.0, relative=False, margin=2.0)
    recorded = uv.record(net, x, y, attack, steps=30, measures=["margin"]).column("margin")
    assert ((recorded[:, -1] >= -4) & (recorded[:, -1] <= -3)).all()
    assert attack.settings["score"].endswith("callable_score_with_a_margin.<locals>.doubt")


@pytest.mark.parametrize("make", [evading, orthogonal])
def test_targeted_it_holds_the_band_in_its_target(make) -> None:
    net, x = linear_world(4), grey_images(20)
    y = predictions(net, x)
    target = (y + 1) % 4
    options = {} if make is evading else {"strategy": "selective"}
    attack = make(eps=0.5, step_size=0.02, targeted=True, **options)
    recorded = uv.record(net, x, y, attack, steps=60, target=target, measures=["log_relative_sharpness"])
    change = np.diff(recorded.column("log_relative_sharpness")[:, [0, -1]], axis=1)
    np.testing.assert_array_equal(recorded.column("predicted")[:, -1], target)
    assert (np.abs(change) <= 1).mean() >= 0.9


@pytest.mark.parametrize("norm", NORMS)
def test_the_orthogonal_strategy_spends_nothing_of_the_other_objective(norm: str) -> None:
    """In l2, to first order: each step's change of log κ is that of the step's square, not of its length."""
    net, x = curved_world(), grey_images(20)
    y = predictions(net, x)
    spent = {}
    for strategy in ("orthogonal", "selective"):
        attack = orthogonal("l2", eps=1.0, step_size=1e-5, strategy=strategy)
        change, _ = walked(net, x, y, attack, 1)
        spent[strategy] = np.abs(change[:, 1]).max()
    assert spent["orthogonal"] < 1e-3 * spent["selective"]


# --- the gradient of log κ ------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("name", ["log_relative_sharpness", "log_trace", "log_gini"])
def test_gradients_of_head_measures_are_true_at_the_ridge_and_deep_in_the_valley(
    name: str, gap: float
) -> None:
    """float64 against central differences, and float32 against float64."""
    net = curved_world()
    x = grey_images(6)
    with torch.no_grad():
        top = net(x).topk(2).values
        net[3].weight.mul_(gap / (top[:, 0] - top[:, 1]).median())
        net[3].bias.mul_(gap / (top[:, 0] - top[:, 1]).median())
    score = measures.resolve([name])[0]
    y = predictions(net, x)

    def at(net: nn.Module, x: Tensor) -> Probe:
        return Prober(uv.split(net, x), x, y)(x, {"constraint_grad"}, constraint=score)

    exact = at(net, x)
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    ahead, behind = (score(at(net, x + sign * 1e-6 * direction)) for sign in (1, -1))
    slope = (exact.constraint_grad * direction).flatten(1).sum(dim=1)
    torch.testing.assert_close((ahead - behind) / 2e-6, slope, rtol=1e-5, atol=1e-8 * max(1, gap))
    torch.testing.assert_close(exact.constraint, score(exact))
    assert not exact.constraint.requires_grad
    assert not any(value.requires_grad for value in vars(exact).values() if isinstance(value, Tensor))
    rounded = at(net.float(), x.float()).constraint_grad.double()
    scale = exact.constraint_grad.flatten(1).norm(dim=1)
    assert ((rounded - exact.constraint_grad).flatten(1).norm(dim=1) <= 1e-4 * scale).all()


# --- a real network -------------------------------------------------------------------------------------


@pytest.mark.shared
def test_resnet20_is_fooled_with_its_sharpness_where_it_was(correct_cifar) -> None:
    """Almost every image; plain PGD, as long as this, leaves almost none inside ±1 nat."""
    net, x, y = correct_cifar
    model = uv.split(net, x)
    ball = {"eps": 8 / 255, "step_size": 1 / 255}
    held = {}
    for attack in (pgd(**ball), evading(**ball), orthogonal(strategy="selective", **ball)):
        change, wrong = walked(model, x[:12], y[:12], attack, 20)
        held[attack.name] = (wrong & (np.abs(change) <= 1))[:, -1].mean()
    assert held["evading"] >= 0.9
    assert held["orthogonal"] >= 0.8
    assert held["pgd"] <= 0.2


# --- provenance, cost, company --------------------------------------------------------------------------


def test_settings_are_plain_and_name_what_decides_the_path() -> None:
    for make in (evading, orthogonal, uv.attacks.isoconfidence):
        settings = make(**BALL).settings
        assert json.loads(json.dumps(settings)) == dict(settings)
    sharp = evading(**BALL).settings
    assert sharp["score"] == "log_relative_sharpness"
    assert sharp["score_version"] == measures.available()["log_relative_sharpness"].version
    assert sharp != evading(score="log_gini", **BALL).settings
    assert "stop" not in sharp


def test_twenty_steps_cost_21_forwards_and_twice_20_backwards() -> None:
    for make in (evading, orthogonal):
        assert cost_of(make(eps=0.1, step_size=0.01), CHEAP) == (21, 40)


@pytest.mark.parametrize("make", [evading, orthogonal, uv.attacks.isoconfidence])
def test_rows_do_not_depend_on_company(make) -> None:
    net, x = curved_world(), grey_images(12)
    y = predictions(net, x)
    attack = make(eps=0.25, step_size=0.03, random_start=True)
    runs = [uv.record(net, x, y, attack, steps=5, batch_size=size, seed=3) for size in (12, 5, 1)]
    assert runs[0].table.equals(uv.record(net, x, y, attack, steps=5, batch_size=12, seed=3).table)
    for name in ("log_relative_sharpness", "margin", "distance_linf"):
        for other in runs[1:]:
            np.testing.assert_allclose(
                other.column(name), runs[0].column(name), rtol=1e-7, atol=1e-7, err_msg=name
            )


# --- refusals -------------------------------------------------------------------------------------------


def counts(probe: Probe) -> Tensor:
    return probe.predicted.double()


def forgets(probe: Probe) -> Tensor:
    return probe.logits.detach().sum(dim=1)


def breaks(probe: Probe) -> Tensor:
    return (probe.softmax.weights.min(dim=1).values.sqrt() + probe.softmax.gap).sqrt()


def test_a_finite_score_with_a_broken_gradient_is_refused(small_net, small_images) -> None:
    """A root at 0: the step would be NaN, or silently nothing."""
    with pytest.raises(InputError, match="gradient of breaks in the image is NaN or infinite for 12 of 12"):
        uv.record(small_net, *small_images, evading(score=breaks, **BALL), steps=1)


@pytest.mark.parametrize("score", [counts, forgets])
def test_a_score_without_a_gradient_is_refused(score, small_net, small_images) -> None:
    with pytest.raises(InputError, match="has no gradient in the image"):
        uv.record(small_net, *small_images, evading(score=score, **BALL), steps=1)


def test_a_measure_of_an_inner_layer_that_only_reads_is_refused(small_net, small_images) -> None:
    from uncannyvalley.derivatives.layer_measures import with_layers

    model = uv.split(small_net, small_images[0])
    (reads,) = with_layers(model, ["log_relative_sharpness@0"])
    with pytest.raises(InputError, match="layer_sharpness"):
        uv.record(model, *small_images, evading(score=reads, **BALL), steps=1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"score": "log_relative_sharpnes"}, "did you mean 'log_relative_sharpness'"),
        ({"score": "input_gradient_norm"}, "second derivatives"),
        ({"score": 3}, "function of a probe, got int"),
        ({"low": 1.0, "high": 1.0}, "band is empty"),
        ({"high": float("inf")}, "finite number"),
        ({"margin": -1.0}, "at least 0"),
        ({"stop": -1.0}, "at least 0"),
        ({"eps": 0}, "eps must be"),
        ({"norm": "l1"}, "unknown norm"),
    ],
)
@pytest.mark.parametrize("make", [evading, orthogonal])
def test_options(make, options: dict, says: str) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # the shape hook would refuse wrong types first
    try:
        with pytest.raises(InputError, match=says):
            make(**(BALL | options))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_an_unknown_strategy() -> None:
    with pytest.raises(InputError, match="did you mean 'orthogonal'"):
        orthogonal(strategy="ortogonal", **BALL)
