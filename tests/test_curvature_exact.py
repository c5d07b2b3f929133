"""Exact curvature of any layer is what its definition says: held against materialised derivatives, layer by layer."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley as uv
from layers import (
    EVERY_LAYER,
    NETWORKS,
    SMALL,
    dense,
    image_batch,
    images_for,
    layers_of,
    network,
    quantities_at,
    ready,
    true_class_gradients,
    true_directional,
    true_quantities,
)
from oracles import ExactRow, valley_derivative
from uncannyvalley.derivatives.linearity import linear_by_numbers, linear_by_operations
from uncannyvalley.derivatives.passes import trace
from uncannyvalley.derivatives.quantities import QUANTITIES
from uncannyvalley.derivatives.sites import find_site

GAPS = (50.0, 100.0, 200.0, 300.0)
CLOSED_FORMS = {
    "trace": "log_trace",
    "relative_sharpness": "log_relative_sharpness",
    "relative_top_eigenvalue": "log_top_eigenvalue",
    "third_order": "log_third_order",
}
CURVED = [
    ("gelu", "1"), ("gelu", "3"), ("gelu", "input"), ("tanh", "1"), ("softplus", "3"), ("hardswish", "1"),
    ("attention", "qkv"), ("attention", "wide"), ("attention", "input"), ("encoder", "block.linear1"),
    ("shared", "layer"), ("product", "stem"), ("product", "input"), ("curved_windows", "window"),
]  # fmt: skip
STRAIGHT_BEHIND = [("gelu", "5"), ("tanh", "5"), ("attention", "narrow"), ("product", "a"), ("product", "b")]
STRAIGHT = [(name, layer) for name, layer in EVERY_LAYER if NETWORKS[name].straight] + STRAIGHT_BEHIND

COPIES = ("paddings", "one_dimension")
"""Circular padding writes into slices, which only the numbers recognise as linear."""


# --- derivatives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layer"), EVERY_LAYER)
def test_exact_quantities_are_those_of_the_materialised_derivatives(name: str, layer: str) -> None:
    net, (x, y) = network(name), images_for(name)
    truth = [true_quantities(net, layer, image, label) for image, label in zip(x, y, strict=True)]
    for quantity in quantities_at(layer):
        found = uv.curvature(net, x, y, layer, quantity)
        assert found.stderr is None
        wanted = [one[quantity] for one in truth]
        assert any(wanted), "a dead network proves nothing"
        assert found.value.tolist() == pytest.approx(wanted, rel=1e-8, abs=1e-12), quantity


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "layer"),
    [("conv_norm", "0"), ("paddings", "6"), ("gelu", "1"), ("attention", "wide"), ("shared", "layer"),
     ("windows", "window"), ("gelu", "5"), ("conv_norm", "input"), ("gelu", "input"), ("attention", "input")],
)  # fmt: skip
def test_directional_derivatives_are_contractions(name: str, layer: str, order: int) -> None:
    net, (x, y) = network(name), images_for(name, 3)
    one = NETWORKS[name].shape if layer == "input" else tuple(net.get_submodule(layer).weight.shape)
    draw = torch.Generator().manual_seed(5)
    shared = torch.randn(one, generator=draw, dtype=torch.float64)
    own = torch.randn(len(x), *one, generator=draw, dtype=torch.float64)
    for direction, each in ((shared, shared.expand(len(x), *one)), (own, own)):
        found = uv.directional_derivative(net, x, y, layer, direction, order)
        truth = [true_directional(net, layer, *row, order) for row in zip(x, y, each, strict=True)]
        assert found.dtype == torch.float64
        assert found.tolist() == pytest.approx(truth, rel=1e-8, abs=1e-11)


@pytest.mark.parametrize("name", ["conv_norm", "gelu", "attention"])
def test_at_the_head_the_engine_equals_the_closed_forms(name: str) -> None:
    net, (x, y) = network(name), images_for(name, 6)
    attack = uv.attacks.pgd(eps=0.1, step_size=0.1)
    walked = uv.record(net, x, y, attack, steps=1, measures=list(CLOSED_FORMS.values()))
    head = layers_of(name)[-2]
    for quantity, closed in CLOSED_FORMS.items():
        found = uv.curvature(net, x, y, head, quantity)
        np.testing.assert_allclose(
            found.log_value, walked.column(closed)[:, 0], rtol=0, atol=1e-8, err_msg=closed
        )


def test_layers_measured_together_equal_layers_measured_alone() -> None:
    """Backward passes are shared between sites: one site's mark must not change another's gradient."""
    from uncannyvalley.derivatives.engine import measure_sites
    from uncannyvalley.derivatives.results import Effort

    for name in ("residual", "pools", "gelu"):
        net, (x, y) = network(name), images_for(name, 3)
        model = uv.split(net, x, prepare=False)
        layers = [layer for layer in layers_of(name) if layer != "input"]
        asked = [QUANTITIES["trace"], QUANTITIES["relative_sharpness"], QUANTITIES["top_eigenvalue"]]
        together = measure_sites(model, [find_site(model, one) for one in layers], x, y, asked, Effort())
        for (layer, quantity), found in together.items():
            alone = uv.curvature(net, x, y, layer, quantity)
            torch.testing.assert_close(found.value, alone.value, rtol=1e-9, atol=0)


# --- the valley -------------------------------------------------------------------------------------


def with_gap(name: str, image: Tensor, gap: float) -> nn.Module:
    """The network with its head scaled so that the image's two largest logits lie ``gap`` apart."""
    net = network(name)
    head = net.get_submodule(layers_of(name)[-2])
    with torch.no_grad():
        first, second = net(image[None])[0].topk(2).values
        for parameter in head.parameters():
            parameter *= gap / (first - second)
    return net


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize(("name", "layer"), [("conv_norm", "0"), ("residual", "conv2"), ("pools", "0")])
def test_class_gradients_hold_in_the_valley(name: str, layer: str, gap: float) -> None:
    """A piecewise linear network has the Hessian of a head whose rows are the class gradients: 160 digits."""
    x, y = images_for(name, 1)
    net = with_gap(name, x[0], gap)
    logits = net(x)[0].detach()
    for quantity, known in QUANTITIES.items():
        gradients = true_class_gradients(net, layer, x[0], relative=known.relative)
        rows = torch.linalg.qr(gradients.T).R.T  # the same inner products in as many axes as classes
        row = ExactRow(logits, torch.ones(1), rows, 0)
        truth = {
            "trace": row.log_relative_sharpness,
            "top_eigenvalue": row.log_top_eigenvalue,
            "third_order": row.log_third_order,
        }[known.kind]()
        found = uv.curvature(net, x, y, layer, quantity)
        assert found.log_value.item() == pytest.approx(truth, abs=1e-8), quantity
    p = logits.softmax(dim=0)
    naive = p @ gradients.square().sum(dim=1) - (p @ gradients).square().sum()
    assert naive.item() != pytest.approx(math.exp(row.log_relative_sharpness()), rel=0.5, abs=0)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize(("name", "layer"), [("gelu", "3"), ("attention", "wide"), ("shared", "layer")])
def test_hessian_products_hold_in_the_valley(name: str, layer: str, gap: float) -> None:
    """Below e^-36 the loss is e^g, whose Hessian is e^g (∂²g + ∂g ∂gᵀ)."""
    x, _ = images_for(name, 1)
    net = with_gap(name, x[0], gap)
    label = net(x)[0].argmax()
    depth, second = valley_derivative(net, layer, x[0], label)
    truth = {"trace": second.trace(), "top_eigenvalue": torch.linalg.eigvalsh(second)[-1]}
    for quantity, scaled in truth.items():
        found = uv.curvature(net, x, label[None], layer, quantity)
        assert found.value.item() == pytest.approx(scaled.item() * math.exp(depth), rel=1e-8, abs=0), quantity


@pytest.mark.parametrize("gap", [1.0, 100.0, 300.0])
@pytest.mark.parametrize(("name", "layer"), [("conv_norm", "0"), ("residual", "conv1"), ("gelu", "1")])
def test_float32_is_as_good_as_float64(name: str, layer: str, gap: float) -> None:
    x, y = images_for(name, 1)
    net = with_gap(name, x[0], gap).float()
    y = net(x.float()).argmax(dim=1)
    shift = (net(x.float()) - (twin := with_gap(name, x[0], gap).float().double())(x)).abs().max().item()
    for quantity in QUANTITIES:
        single = uv.curvature(net, x.float(), y, layer, quantity).log_value
        double = uv.curvature(twin, x, y, layer, quantity).log_value
        assert single.item() == pytest.approx(double.item(), abs=1e-4 + 2 * shift), quantity


# --- linear or not ----------------------------------------------------------------------------------


def verdicts(net: nn.Module, x: Tensor, layer: str) -> tuple[bool, bool]:
    """What operations say, and what numbers say."""
    model = uv.split(net, x, prepare=False)
    site = find_site(model, layer)
    return linear_by_operations(trace(model, [site], x)), linear_by_numbers(model, site, x)


@pytest.mark.parametrize(("name", "layer"), STRAIGHT)
def test_piecewise_linear_networks_are_recognised(name: str, layer: str) -> None:
    by_operations, by_numbers = verdicts(network(name), images_for(name)[0], layer)
    assert by_numbers
    assert by_operations or name in COPIES
    assert uv.curvature(network(name), *images_for(name), layer, "trace").how == "class gradients"


@pytest.mark.parametrize(("name", "layer"), CURVED)
def test_curved_networks_are_recognised(name: str, layer: str) -> None:
    assert verdicts(network(name), images_for(name)[0], layer) == (False, False)
    assert uv.curvature(network(name), *images_for(name), layer, "trace").how == "Hessian products"


class Clamp(torch.autograd.Function):
    """A user's own smooth operation that has the name of one of torch's piecewise linear ones."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x + x**3

    @staticmethod
    def backward(ctx, pull: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return pull * (1 + 3 * x**2)


def test_a_curve_under_a_straight_name_is_not_taken_for_straight() -> None:
    x = image_batch(SMALL, 3)
    named, plain = ready(lambda: dense(Clamp.apply), SMALL), ready(lambda: dense(lambda z: z + z**3), SMALL)
    y = torch.arange(3)
    found, truth = (uv.curvature(net, x, y, "1", "trace").value for net in (named, plain))
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=0)


def test_a_curve_where_all_images_lie_on_its_straight_part() -> None:
    """Hardswish is a line above 3: the class gradients are exact there, and only there."""
    x = image_batch(SMALL, 2)
    net = ready(lambda: dense(F.hardswish), SMALL)
    with torch.no_grad():
        net[1].bias += 20
        net[3].bias += 40 * net[3].weight.abs().sum(1)
    found = uv.curvature(net, x, torch.arange(2), "1", "trace")
    truth = [true_quantities(net, "1", *row)["trace"] for row in zip(x, torch.arange(2), strict=True)]
    assert found.how == "class gradients"
    assert found.value.tolist() == pytest.approx(truth, rel=1e-8)


# --- symmetries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-2, 7.0])
def test_rescaling_between_two_layers(factor: float) -> None:
    """A ReLU lets a positive factor through, so that the network stays the same function."""
    (x, y), before, after = images_for("paddings", 3), network("paddings"), network("paddings")
    with torch.no_grad():
        for parameter in after[2].parameters():
            parameter *= factor
        after[4].weight /= factor
    torch.testing.assert_close(after(x), before(x), rtol=1e-9, atol=1e-12)
    powers = {"trace": -2, "top_eigenvalue": -2, "third_derivative": -3}
    for layer, sign in (("2", 1), ("4", -1)):
        for quantity in QUANTITIES:
            one, two = (uv.curvature(net, x, y, layer, quantity).log_value for net in (before, after))
            moved = sign * powers.get(quantity, 0) * math.log(factor)
            np.testing.assert_allclose(two - one, moved, rtol=0, atol=1e-8, err_msg=f"{quantity}@{layer}")
