"""Estimates keep their promise: their intervals cover the truth, their rows are alone, their seed decides them."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley as uv
from layers import Act, dense, image_batch, images_for, network, ready
from uncannyvalley.derivatives.engine import measure_sites
from uncannyvalley.derivatives.quantities import QUANTITIES
from uncannyvalley.derivatives.results import Effort, Estimate
from uncannyvalley.derivatives.sites import find_site

SEEDS = 200
PIXELS = (1, 4, 4)


def wide_gelu() -> nn.Module:
    """A layer of 160 weights between two curved ones."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 16), Act(F.gelu), nn.Linear(16, 10), Act(F.gelu), nn.Linear(10, 10)
    )


def many_classes(classes: int, scale: float) -> Callable[[], nn.Module]:
    """A piecewise linear network whose logits spread by about ``scale``."""

    def make() -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, classes, bias=False))
        with torch.no_grad():
            features = net[:3](image_batch(PIXELS, 64, seed=0).float())
            net[3].weight.normal_().mul_(scale / features.norm(dim=1).mean())
        return net

    return make


def estimates_of(
    net: nn.Module, x: Tensor, layer: str, quantity: str, seeds: Sequence[int], **effort: float
) -> list[Estimate]:
    """One estimate a seed, of a network that is split once."""
    model = uv.split(net, x, prepare=False)
    sites, asked = [find_site(model, layer)], [QUANTITIES[quantity]]
    y = torch.arange(len(x)) % model.classes
    found = [
        measure_sites(model, sites, x, y, asked, Effort("estimate", seed=seed, **effort)) for seed in seeds
    ]
    return [one[layer, quantity] for one in found]


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Hundreds of estimates without the shape checks of the tests, which would take most of the time."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def coverage(found: Sequence[Estimate], truth: Tensor) -> float:
    """Share of the 95 % intervals, over seeds and images, that hold the truth."""
    inside = [(one.value - truth).abs() <= 1.96 * one.stderr for one in found]
    return torch.stack(inside).double().mean().item()


def exact(net: nn.Module, x: Tensor, layer: str, quantity: str) -> Tensor:
    return uv.curvature(net, x, torch.arange(len(x)) % net(x).shape[1], layer, quantity).value


# --- intervals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "layer", "backwards"), [("trace", "3", 40), ("relative_sharpness", "1", 40)]
)
def test_intervals_of_traces_by_products_cover_the_truth(
    quantity: str, layer: str, backwards: int, unchecked: None
) -> None:
    net, x = ready(wide_gelu, PIXELS), image_batch(PIXELS, 6)
    truth = exact(net, x, layer, quantity)
    found = estimates_of(net, x, layer, quantity, range(SEEDS // 2), tolerance=0.001, backwards=backwards)
    assert {one.how for one in found} == {"Hutch++"}
    assert all((one.stderr > 1e-3 * truth).all() for one in found), "the rest must have been probed"
    assert coverage(found, truth) >= 0.93


@pytest.mark.parametrize("backwards", [20, 40])
def test_intervals_of_traces_by_class_probes_cover_the_truth(backwards: int, unchecked: None) -> None:
    net, x = ready(many_classes(200, 0.3), PIXELS), image_batch(PIXELS, 6)
    truth = exact(net, x, "1", "trace")
    found = estimates_of(net, x, "1", "trace", range(SEEDS), tolerance=0.001, backwards=backwards)
    assert {one.how for one in found} == {"class probes"}
    assert all((one.dropped > 0.5).all() for one in found), "most classes must have been probed"
    assert coverage(found, truth) >= 0.93


def test_intervals_of_stopping_rows_cover_the_truth(unchecked: None) -> None:
    """Stopping at the tolerance must not prefer the seeds whose spread came out small."""
    net, x = ready(wide_gelu, PIXELS), image_batch(PIXELS, 6)
    truth = exact(net, x, "1", "relative_sharpness")
    found = estimates_of(net, x, "1", "relative_sharpness", range(SEEDS // 4), tolerance=0.03, backwards=100)
    assert any(one.backwards < 100 for one in found), "some must have stopped early"
    assert coverage(found, truth) >= 0.93


def test_intervals_of_third_derivatives_cover_the_truth(unchecked: None) -> None:
    net, (x, _) = ready(lambda: dense(F.gelu), (1, 2, 2)), images_for("gelu", 6)
    truth = exact(net, x, "3", "third_derivative")
    found = estimates_of(net, x, "3", "third_derivative", range(SEEDS // 4), tolerance=0.02, backwards=120)
    assert {one.how for one in found} == {"probes"}
    assert coverage(found, truth) >= 0.93


def test_a_thousand_classes_cost_twenty_backwards_for_one_percent_where_ten_hold_most() -> None:
    net, x = ready(many_classes(1000, 8.0), PIXELS), image_batch(PIXELS, 12)
    share = net(x).softmax(1).topk(10).values.sum(1)
    assert (share > 0.95).all(), "ten classes must hold most"
    truth = exact(net, x, "1", "trace")
    y = torch.zeros(len(x), dtype=torch.int64)
    found = uv.curvature(net, x, y, "1", "trace", "estimate", backwards=20, tolerance=0.002)
    assert found.backwards <= 20
    assert ((found.value - truth).abs() <= 0.01 * truth).all()
    assert (found.dropped < 0.1).all()


def test_a_thousand_classes_that_share_the_weight_say_so_in_their_error() -> None:
    net, x = ready(many_classes(1000, 4.0), PIXELS), image_batch(PIXELS, 12)
    truth = exact(net, x, "1", "trace")
    y = torch.zeros(len(x), dtype=torch.int64)
    few, more = (
        uv.curvature(net, x, y, "1", "trace", "estimate", backwards=count, tolerance=0.002)
        for count in (20, 80)
    )
    assert (few.stderr > 0.01 * truth).any()
    assert ((few.value - truth).abs() <= 1.96 * few.stderr).double().mean() >= 0.9
    assert (more.stderr / truth).median() < 0.2 * (few.stderr / truth).median()


@pytest.mark.parametrize("backwards", [10, 40])
@pytest.mark.parametrize(
    ("make", "layer", "quantity"),
    [
        (wide_gelu, "1", "trace"),
        (wide_gelu, "3", "top_eigenvalue"),
        (wide_gelu, "3", "third_derivative"),
        (many_classes(200, 0.3), "1", "trace"),
    ],
)
def test_an_estimate_takes_no_more_backwards_than_it_may(
    make: Callable[[], nn.Module], layer: str, quantity: str, backwards: int
) -> None:
    net, x = ready(make, PIXELS), image_batch(PIXELS, 2)
    (found,) = estimates_of(net, x, layer, quantity, [0], tolerance=1e-6, backwards=backwards)
    assert found.backwards <= backwards


def test_intervals_of_eigenvalues_hold_an_eigenvalue() -> None:
    """The error of a Lanczos value is its residual, and enough steps reach the largest."""
    net, x = ready(wide_gelu, PIXELS), image_batch(PIXELS, 6)
    truth = exact(net, x, "3", "top_eigenvalue")
    (found,) = estimates_of(net, x, "3", "top_eigenvalue", [0], tolerance=0.01, backwards=200)
    assert found.how == "Lanczos"
    assert ((found.value - truth).abs() <= found.stderr).all()
    assert (found.stderr <= 0.011 * truth).all()


def test_a_tight_tolerance_is_met_where_the_backwards_suffice() -> None:
    net, x = ready(many_classes(200, 0.3), PIXELS), image_batch(PIXELS, 6)
    truth = exact(net, x, "1", "trace")
    (found,) = estimates_of(net, x, "1", "trace", [0], tolerance=0.02, backwards=1000)
    assert (found.stderr <= 0.02 * found.value).all()
    assert ((found.value - truth).abs() <= 4 * found.stderr).all()


# --- rows are alone ---------------------------------------------------------------------------------

ESTIMATED = [
    ("gelu", "1", "trace"), ("gelu", "1", "relative_sharpness"), ("gelu", "3", "top_eigenvalue"),
    ("gelu", "3", "third_derivative"), ("conv_norm", "0", "third_order"), ("conv_norm", "0", "top_eigenvalue"),
    ("conv_norm", "0", "trace"), ("attention", "wide", "trace"),
]  # fmt: skip


def assert_rows_alone(net: nn.Module, x: Tensor, y: Tensor, layer: str, quantity: str, **how: object) -> None:
    """Values and errors are the same for each row by itself, in batches, and in another order."""
    together = uv.curvature(net, x, y, layer, quantity, **how)
    order = torch.arange(len(x)).flip(0)
    chunked = uv.curvature(net, x, y, layer, quantity, batch_size=2, **how)
    turned = uv.curvature(net, x[order], y[order], layer, quantity, **how)
    alone = [uv.curvature(net, x[[row]], y[[row]], layer, quantity, **how) for row in range(len(x))]
    for field in ("value", "log_value", "stderr", "dropped"):
        wanted = getattr(together, field)
        if wanted is None:
            assert all(getattr(one, field) is None for one in (chunked, turned, *alone)), field
            continue
        near = {"rtol": 1e-8, "atol": 1e-12, "equal_nan": True}
        torch.testing.assert_close(getattr(chunked, field), wanted, **near)
        torch.testing.assert_close(getattr(turned, field), wanted[order], **near)
        torch.testing.assert_close(torch.cat([getattr(one, field) for one in alone]), wanted, **near)


@pytest.mark.parametrize(("name", "layer", "quantity"), ESTIMATED)
@pytest.mark.parametrize("method", ["exact", "estimate"])
def test_rows_are_independent_of_their_neighbours(name: str, layer: str, quantity: str, method: str) -> None:
    x, y = images_for(name, 5)
    assert_rows_alone(network(name), x, y, layer, quantity, method=method, tolerance=0.1, backwards=60)


def of_mixed_confidence(classes: int) -> tuple[nn.Module, Tensor]:
    """A network that is sure of some images and flat on others."""
    x = image_batch(PIXELS, 4) * torch.tensor([1.0, 0.02, 0.6, 0.1], dtype=torch.float64)[:, None, None, None]
    net = ready(many_classes(classes, 8.0), PIXELS)
    with torch.no_grad():
        net[1].bias.zero_()
    return net, x


@pytest.mark.parametrize(("tolerance", "backwards"), [(0.05, 200), (0.001, 60)])
def test_a_sure_image_has_the_same_estimate_beside_an_unsure_one(tolerance: float, backwards: int) -> None:
    net, x = of_mixed_confidence(100)
    y = torch.arange(len(x))
    effort = {"method": "estimate", "tolerance": tolerance, "backwards": backwards}
    assert_rows_alone(net, x, y, "1", "trace", **effort)


def test_an_image_with_rare_loud_classes_beside_an_unsure_one() -> None:
    """Where rare classes have the largest gradients, probes decide, and each row has its own number of them."""

    net = ready(many_classes(100, 3.0), PIXELS)
    x = image_batch(PIXELS, 1) * torch.tensor([1.0, 0.02], dtype=torch.float64)[:, None, None, None]
    with torch.no_grad():
        net[1].bias.zero_()
        features = net[:3](x[:1])
        across = torch.linalg.svd(features).Vh[1] * 20 * net[3].weight.norm(dim=1).mean() * (features[0] > 0)
        sides = torch.linspace(-1, 1, 50, dtype=torch.float64).sign()[:, None]
        net[3].weight[50:] = sides * across - 4 * features[0] / features.square().sum()
    assert_rows_alone(
        net, x, torch.tensor([0, 1]), "1", "trace", method="estimate", tolerance=0.02, backwards=80
    )


def test_an_image_on_a_straight_part_beside_one_on_a_bend() -> None:
    """Hardswish is a line for the first image and a curve for the second: each alone gets its own method."""
    net = ready(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 4), Act(F.hardswish), nn.Linear(4, 3)), PIXELS
    )
    with torch.no_grad():
        net[1].weight.copy_(net[1].weight.abs())
        net[1].bias.fill_(1.0)
        net[1].weight *= 5 / net[1].weight.sum(1, True)
    x = torch.stack([torch.full(PIXELS, 0.9), torch.full(PIXELS, 0.1)]).double()
    y = torch.tensor([0, 1])
    for method in ("exact", "estimate"):
        together, chunked = (
            uv.curvature(net, x, y, "1", "trace", method, batch_size=size) for size in (None, 1)
        )
        torch.testing.assert_close(chunked.value, together.value, rtol=1e-8, atol=0)


# --- seeds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layer", "quantity"), [ESTIMATED[0], ESTIMATED[3], ESTIMATED[4]])
def test_the_seed_decides_an_estimate(name: str, layer: str, quantity: str) -> None:
    net, (x, y) = network(name), images_for(name, 3)
    first, again, other = (
        uv.curvature(net, x, y, layer, quantity, "estimate", backwards=30, seed=seed) for seed in (7, 7, 8)
    )
    assert torch.equal(first.value, again.value)
    assert torch.equal(first.stderr, again.stderr)
    assert (first.value != other.value).all()


@pytest.mark.parametrize("quantity", ["relative_sharpness", "third_order"])
def test_estimates_of_relative_quantities_do_not_see_the_scale(quantity: str) -> None:
    net, (x, y) = network("conv_norm"), images_for("conv_norm", 3)
    before = uv.curvature(net, x, y, "0", quantity, "estimate", backwards=40)
    with torch.no_grad():
        net[0].weight *= 100
        net[0].bias *= 100
        net[1].running_mean *= 100
        net[1].running_var *= 100**2
        net[1].eps *= 100**2
    after = uv.curvature(net, x, y, "0", quantity, "estimate", backwards=40)
    torch.testing.assert_close(after.value, before.value, rtol=1e-6, atol=0)
