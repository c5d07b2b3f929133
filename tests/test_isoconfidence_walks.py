"""Walks that hold the margin: a linear programme they must solve, and sharpness of inner layers as their push."""

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.attacks import isoconfidence
from uncannyvalley.attacks.tangent import tangent_step
from uncannyvalley.derivatives.layer_objective import layer_sharpness
from uncannyvalley.errors import InputError
from uncannyvalley.probe import Prober
from uncannyvalley.types import Probe
from worlds import NORMS, PIXELS, curved_world, grey_images, iterates, linear_world, predictions

BALL = {"eps": 0.1, "step_size": 0.02}
BAND = 0.5


def brightness(probe: Probe) -> Tensor:
    """A fixed direction of the image."""
    weights = torch.linspace(-1, 2, PIXELS, dtype=probe.x.dtype).view(1, 4, 4)
    return (probe.x * weights).flatten(1).sum(dim=1)


# --- the tangent step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_linf_step_solves_its_linear_programme(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    climbed, held = (torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    held[0, 0, :2] = 0
    clean = torch.rand(5, 1, 4, 4, dtype=torch.float64, generator=draw)
    x = (clean + 0.2 * (torch.rand(clean.shape, dtype=torch.float64, generator=draw) - 0.5)).clamp(0, 1)
    change = torch.tensor([0.0, 0.1, -0.2, 0.3, 50.0], dtype=torch.float64)
    length = torch.full((5,), 0.05, dtype=torch.float64)
    found = tangent_step(climbed, held, change, length, x, clean, 0.1, "linf")
    low = torch.maximum((clean - 0.1).clamp(min=0) - x, torch.tensor(-0.05, dtype=torch.float64))
    high = torch.minimum((clean + 0.1).clamp(max=1) - x, torch.tensor(0.05, dtype=torch.float64))
    assert (found >= low - 1e-12).all()
    assert (found <= high + 1e-12).all()
    for row in range(4):
        best = linprog(
            -climbed[row].flatten().numpy(), A_eq=held[row].flatten()[None].numpy(), b_eq=[change[row].item()],
            bounds=list(zip(low[row].flatten().tolist(), high[row].flatten().tolist(), strict=True)),
        )  # fmt: skip
        if best.status != 0:  # what is asked cannot be had
            continue
        assert (held[row] * found[row]).sum().item() == pytest.approx(change[row].item(), abs=1e-9)
        assert (climbed[row] * found[row]).sum().item() == pytest.approx(-best.fun, abs=1e-9)
    most = torch.where(held[4] > 0, high[4], low[4])  # too much asked: all that can be had
    assert (held[4] * found[4]).sum().item() == pytest.approx((held[4] * most).sum().item())


def test_the_l2_step_has_its_length_and_changes_what_it_holds_as_asked() -> None:
    draw = torch.Generator().manual_seed(0)
    climbed, held = (torch.randn(4, 1, 4, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    change, length = torch.tensor([0.0, 0.1, -0.2, 9.0]).double(), torch.full((4,), 0.5).double()
    half = torch.full_like(climbed, 0.5)
    found = tangent_step(climbed, held, change, length, half, half, 1.0, "l2").flatten(1)
    torch.testing.assert_close(found.norm(dim=1), length)
    spent = (found * held.flatten(1)).sum(dim=1)
    torch.testing.assert_close(spent[:3], change[:3])
    assert spent[3] == pytest.approx(0.5 * held[3].norm().item())
    rest = climbed.flatten(1) - found / 0.5 * (climbed.flatten(1) * found / 0.5).sum(1, True)
    outside = rest[0] - held[0].flatten() * (rest[0] @ held[0].flatten()) / held[0].square().sum()
    assert outside.norm() < 1e-9  # the climbed direction lies in the plane of the step and what is held


# --- a walk whose end is known --------------------------------------------------------------------------


@pytest.mark.parametrize("up", [True, False])
def test_in_a_linear_world_the_walk_ends_at_the_optimum_of_its_level_set(up: bool) -> None:
    net, x = linear_world(2), grey_images(8)
    attack = isoconfidence(push=brightness, up=up, **BALL)
    recorded = uv.record(net, x, predictions(net, x), attack, steps=25, measures=["margin"])
    margin = recorded.column("margin")
    np.testing.assert_allclose(margin, np.repeat(margin[:, :1], margin.shape[1], axis=1), atol=1e-9)
    weights = np.linspace(-1, 2, PIXELS)
    normal = (net[1].weight[0] - net[1].weight[1]).detach().numpy()
    best = linprog(-weights if up else weights, A_eq=normal[None], b_eq=[0.0], bounds=(-0.1, 0.1))
    last = iterates(net, x, predictions(net, x), attack, steps=25)[-1]
    moved = ((last - x).flatten(1).numpy() * weights).sum(axis=1)
    np.testing.assert_allclose(moved, -best.fun if up else best.fun, rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("random_start", [False, True])
def test_the_margin_stays_in_its_band_at_every_point(norm: str, random_start: bool) -> None:
    """From a random start outside it, it comes back and stays."""
    net, x = curved_world(), grey_images(20)
    with torch.no_grad():
        net[3].weight.mul_(200)
        net[3].bias.mul_(200)
    size = 0.3 if norm == "linf" else 1.0
    attack = isoconfidence(norm, eps=size, step_size=size / 3, band=0.25, random_start=random_start)
    recorded = uv.record(
        net, x, predictions(net, x), attack, steps=15, measures=["margin", "log_relative_sharpness"]
    )
    margin, sharpness = recorded.column("margin"), recorded.column("log_relative_sharpness")
    held = np.abs(margin - margin[:, :1]) <= 0.25
    if random_start:
        assert held[:, -1].mean() >= 0.9
        for row in held:
            assert row[1:][row[1:].argmax() :].all() or not row[1:].any()
    else:
        assert held.all()
        assert (sharpness[:, -1] > sharpness[:, 0]).mean() >= 0.9


# --- sharpness of inner layers --------------------------------------------------------------------------


def odd_net(classes: int) -> nn.Module:
    """Groups, strides, padding by reflection, one dimension less at the end, no bias here and there."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, padding_mode="reflect", bias=False), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.BatchNorm2d(8), nn.LeakyReLU(),
        nn.Flatten(), nn.Linear(8 * 4, 10), nn.ReLU(), nn.Linear(10, classes, bias=False),
    ).eval()  # fmt: skip


def odd_images(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(4)
    return torch.rand(count, 2, 6, 6, generator=draw).to(dtype), torch.arange(count) % 3


@pytest.mark.parametrize("quantity", ["relative_sharpness", "trace"])
@pytest.mark.parametrize("layer", ["0", "2", "6", "8"])
@pytest.mark.parametrize("confidence", [1.0, 300.0])
def test_layer_sharpness_is_that_of_curvature(quantity: str, layer: str, confidence: float) -> None:
    """Also in the valley, where p rounds to 1."""
    net = odd_net(5)
    with torch.no_grad():
        net[8].weight.mul_(confidence)
    x, y = odd_images(7)
    model = uv.split(net, x)
    for one, tolerance in ((model, 1e-4), (model.in_double(), 1e-9)):
        images = x.to(one.dtype)
        expected = uv.curvature(one, images, y, layer, quantity).log_value
        push = layer_sharpness(one, layer, quantity)
        found = push(Prober(one, images, y)(images))
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
        assert not found.requires_grad


@pytest.mark.parametrize("classes", [5, 30])
@pytest.mark.parametrize("layer", ["0", "2", "6", "8"])
def test_the_gradient_of_layer_sharpness_is_true(layer: str, classes: int) -> None:
    """Against central differences in float64, where no ReLU turns within them; the same in float32."""
    net, (x, y) = odd_net(classes), odd_images(9)
    with torch.no_grad():
        net[8].weight.mul_(10)
    model = uv.split(net, x)
    exact = model.in_double()
    push = layer_sharpness(exact, layer)

    def at(images: Tensor, *needs: str) -> Probe:
        return Prober(exact, images, y)(images, needs, constraint=push)

    x64 = x.double()
    gradient = at(x64, "constraint_grad").constraint_grad
    assert gradient is not None
    direction = torch.randn(x64.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    step = 1e-6
    ahead, behind = (push(at(x64 + sign * step * direction)) for sign in (1, -1))
    slope = (gradient * direction).flatten(1).sum(dim=1)
    torch.testing.assert_close((ahead - behind) / (2 * step), slope, rtol=1e-5, atol=1e-6)
    rounded = Prober(model, x, y)(x, {"constraint_grad"}, constraint=layer_sharpness(model, layer))
    away = (rounded.constraint_grad - gradient).flatten(1).norm(dim=1)
    assert (away <= 1e-3 * gradient.flatten(1).norm(dim=1)).all()


def test_beyond_twenty_classes_probes_are_near_and_stay_the_same() -> None:
    net, (x, y) = odd_net(40), odd_images(6)
    model = uv.split(net, x)
    probe = Prober(model, x, y)(x)
    truth = uv.curvature(model, x, y, "2").log_value
    few, again, many = (layer_sharpness(model, "2", probes=count)(probe) for count in (16, 16, 300))
    assert torch.equal(few, again)
    assert (few - truth).abs().median() < 0.3
    torch.testing.assert_close(many, truth, rtol=0, atol=0.3)


@pytest.mark.shared
def test_on_resnet20_sharpness_of_a_layer_is_driven_both_ways_at_equal_confidence(correct_cifar) -> None:
    net, x, y = correct_cifar
    model = uv.split(net, x)
    push = layer_sharpness(model, "12.main.3")
    driven = {}
    for up in (True, False):
        attack = isoconfidence(eps=8 / 255, step_size=1 / 255, push=push, up=up)
        recorded = uv.record(model, x[:8], y[:8], attack, steps=6, measures=["margin", push])
        margin, sharpness = recorded.column("margin"), recorded.column(push.name)
        assert (np.abs(margin - margin[:, :1]) <= BAND).all()
        driven[up] = sharpness[:, -1] - sharpness[:, 0]
    assert np.median(driven[True]) > 0.3
    assert np.median(driven[False]) < -0.3


def test_layers_are_told_apart_in_settings() -> None:
    net, (x, _) = odd_net(5), odd_images(4)
    model = uv.split(net, x)
    first, second = (isoconfidence(push=layer_sharpness(model, one), **BALL) for one in ("0", "2"))
    assert first.settings["push"] == "log_relative_sharpness@0"
    assert first.settings != second.settings
    assert first.settings != isoconfidence(push=layer_sharpness(model, "0"), up=False, **BALL).settings


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"targeted": True}, "aims at none"),
        ({"band": 0}, "above 0 nats"),
        ({"band": "wide"}, "finite number"),
        ({"push": "log_kappa"}, "unknown measure"),
        ({"push": "input_gradient_norm"}, "second derivatives"),
    ],
)
def test_options(options: dict, says: str) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # the shape hook would refuse wrong types first
    try:
        with pytest.raises(InputError, match=says):
            isoconfidence(**(BALL | options))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_layers_and_quantities_that_cannot_be_pushed() -> None:
    net, (x, _) = odd_net(5), odd_images(4)
    model = uv.split(net, x)
    with pytest.raises(InputError, match="unknown layer"):
        layer_sharpness(model, "22")
    with pytest.raises(InputError, match="did you mean 'trace'"):
        layer_sharpness(model, "2", "traces")
    with pytest.raises(InputError, match="the input has none"):
        layer_sharpness(model, "input")
