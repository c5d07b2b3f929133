"""Lipschitz constants: every rule holds against random pairs and the Jacobian."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley as uv
from uncannyvalley.theory import rules
from uncannyvalley.theory.lipschitz import Lipschitz, lipschitz_bound, sampled_lipschitz
from uncannyvalley.theory.operator_norm import (
    ROUND_UP,
    convolution_norm,
)


def largest(matrix: Tensor) -> float:
    return torch.linalg.matrix_norm(matrix.double(), 2).item()


# --- every rule ---------------------------------------------------------------------------------------


class Body(nn.Module):
    """Any function of three channels of 8 x 8 pixels, flattened before a head."""

    def __init__(self, function: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)
        with torch.no_grad():
            width = function(torch.zeros(2, 3, 8, 8), *layers).flatten(1).shape[1]
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(x, *self.layers).flatten(1))


def conv(**options) -> nn.Module:
    return nn.Conv2d(3, 4, 3, **options)


def settled_norm(channels: int = 4) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.running_var.uniform_(0.1, 3)
    return norm


def residual(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    return F.relu(second(F.relu(first(x))) + x)


NETWORKS: dict[str, Callable[[], Body]] = {
    "convolution and batch norm": lambda: Body(lambda x, c, n: F.relu(n(c(x))), conv(padding=1), settled_norm()),
    "batch norm first": lambda: Body(lambda x, n, c: c(n(x)), settled_norm(3), conv(stride=2)),
    "residual": lambda: Body(residual, conv(padding=1), nn.Conv2d(4, 3, 3, padding="same")),
    "in place": lambda: Body(lambda x, c: F.relu_(c(x).mul_(2).add_(1)), conv()),
    "circular padding": lambda: Body(lambda x, c: c(x), conv(padding=1, padding_mode="circular")),
    "circular padding and strides": lambda: Body(
        lambda x, c: c(x * 3), conv(padding=1, stride=(2, 4), padding_mode="circular", dilation=2)
    ),
    "uneven circular padding": lambda: Body(lambda x, c: c(F.pad(x, (0, 2, 2, 1), mode="circular")), conv()),
    "reflected padding": lambda: Body(lambda x, c: c(x), conv(padding=2, padding_mode="reflect")),
    "transposed": lambda: Body(
        lambda x, c: c(x), nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1)
    ),
    "groups and dilation": lambda: Body(lambda x, c: c(x), nn.Conv2d(3, 6, 3, groups=3, dilation=2)),
    "1d": lambda: Body(lambda x, c: c(x.flatten(2)).abs(), nn.Conv1d(3, 4, 5, stride=3)),
    "3d": lambda: Body(lambda x, c: c(x[:, None]), nn.Conv3d(1, 2, 3, padding=1)),
    "max pool": lambda: Body(lambda x: F.max_pool2d(x, 3, stride=2, padding=1)),
    "dilated max pool": lambda: Body(lambda x: F.max_pool2d(x, 2, stride=1, dilation=3)),
    "average pool": lambda: Body(lambda x: F.avg_pool2d(x, 3, stride=2, padding=1)),
    "average pool of real pixels": lambda: Body(
        lambda x: F.avg_pool2d(x, (3, 2), stride=(2, 1), padding=1, ceil_mode=True, count_include_pad=False)
    ),
    "divided pool": lambda: Body(lambda x: F.avg_pool2d(x, 2, divisor_override=1)),
    "adaptive pool": lambda: Body(lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    "means and sums": lambda: Body(lambda x: torch.cat([x.mean((2, 3)), x.sum(1).mean(2)], 1)),
    "largest of an axis": lambda: Body(lambda x: torch.cat([x.amax(1), x.min(1).values], 1)),
    "sorted": lambda: Body(lambda x: x.sort(dim=1, descending=True)[0]),
    "max and min": lambda: Body(lambda x: max_min(x.flatten(1))),
    "min and max of an axis": lambda: Body(
        lambda x: torch.cat([x.min(2, keepdim=True)[0], x.amax(2, keepdim=True)], 2)
    ),
    "shifted max and min": lambda: Body(lambda x: shifted_max_min(*x.flatten(1).chunk(2, dim=1))),
    "relu both ways": lambda: Body(lambda x, c: torch.cat([F.relu(c(x)), F.relu(-c(x))], 1), conv()),
    "relu of a point and its negative": lambda: Body(lambda x: both_sides(x - 0.5)),
    "relu of shifted sides": lambda: Body(lambda x: torch.cat([F.relu(x), F.relu(0.9 - x)], 1)),
    "max with a constant": lambda: Body(lambda x: torch.maximum(x, torch.full((8,), 0.4, dtype=x.dtype))),
    "concatenation": lambda: Body(lambda x, c, d: torch.cat([c(x), d(x), x[:, :, 1:-1, 1:-1]], 1), conv(), conv()),
    "overlapping slices": lambda: Body(lambda x: torch.cat([x[:, :2], x[:, 1:] * 3], 1)),
    "stack": lambda: Body(lambda x: torch.stack([x, 2 - 3 * x, x.flip(3)], 1)),
    "split": lambda: Body(lambda x: sum(x.split(1, dim=1))),
    "unbind": lambda: Body(lambda x: x.unbind(1)[0] - 2 * x.unbind(1)[1]),
    "repeats": lambda: Body(lambda x: x.repeat(1, 2, 1, 1) + x.mean(1, keepdim=True).expand(-1, 6, -1, -1)),
    "roll": lambda: Body(lambda x: x - x.roll(1, 3)),
    "shuffles": lambda: Body(lambda x: F.pixel_unshuffle(x.permute(0, 1, 3, 2), 2)[:, [0, 3, 3]].unsqueeze(1)),
    "constants": lambda: Body(lambda x: (1 - (x + torch.arange(8) / 8)) / torch.arange(1, 9)),
    "matrix products": lambda: Body(
        lambda x, w: torch.arange(40, dtype=x.dtype).view(5, 8) @ w(x) @ torch.ones(4, 2, dtype=x.dtype), nn.Linear(8, 4)
    ),
    "addmm": lambda: Body(lambda x, w: torch.addmm(w.bias, x.flatten(1), w.weight.T, alpha=-3), nn.Linear(192, 4)),
    "spectral norm": lambda: Body(lambda x, c: c(x), nn.utils.parametrizations.spectral_norm(conv())),
    "weight norm": lambda: Body(lambda x, c: c(x), nn.utils.parametrizations.weight_norm(conv())),
    "dropout": lambda: Body(lambda x, d: d(x).contiguous(), nn.Dropout()),
    "prelu": lambda: Body(lambda x, p: p(x - 0.5), nn.PReLU(3, 1.5)),
}  # fmt: skip


def shifted_max_min(a: Tensor, b: Tensor) -> Tensor:
    """No sorting any more: b comes out twice wherever it is the larger one."""
    return torch.cat([torch.max(a, b), torch.min(a + 3, b)], dim=1)


def both_sides(x: Tensor) -> Tensor:
    return torch.cat([F.relu(x), F.relu(-x)], dim=1)


def max_min(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.cat([torch.max(a, b), torch.min(b, a)], dim=1)


def built(name: str) -> nn.Module:
    torch.manual_seed(len(name))
    return NETWORKS[name]().eval()


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def spread(net: nn.Module, x: Tensor, step: float) -> Tensor:
    """|φ(x) − φ(x')|/|x − x'| for random neighbours at several distances."""
    model = uv.split(net, x, prepare=False).in_double()
    ratios = []
    draws = torch.Generator().manual_seed(7)
    for scale in (step, 0.1, 1.0):
        other = x.double() + scale * torch.randn(x.shape, dtype=torch.float64, generator=draws)
        moved = (model.features(x.double()) - model.features(other)).flatten(1).norm(dim=1)
        ratios.append(moved / (x - other).flatten(1).norm(dim=1))
    return torch.cat(ratios)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bound_holds_for_pairs_and_for_the_jacobian(name: str) -> None:
    net, x = built(name), images()
    bound = lipschitz_bound(net, x)
    assert bound.status == "certified"
    sampled = sampled_lipschitz(net, x, iterations=30)
    assert sampled.status == "estimated"
    assert 0 < sampled.value <= bound.value * (1 + 1e-12)
    with torch.no_grad():
        assert spread(net, x, 1e-3).max() <= bound.value * (1 + 1e-12)


LINEAR = {
    "circular padding", "groups and dilation", "transposed", "adaptive pool", "average pool", "average pool of real pixels",
    "overlapping slices", "stack", "sorted", "max and min", "dropout", "min and max of an axis", "relu of a point and its negative", "relu of shifted sides", "constants", "batch norm first", "shuffles",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_one_linear_map_or_sorting_is_measured_exactly(name: str) -> None:
    """Nothing is lost where there is one map to measure."""
    net, x = built(name), images()
    exact = jacobian_norm(net, x)
    assert exact <= lipschitz_bound(net, x).value <= exact * (1 + 1e-6)


def jacobian_norm(net: nn.Module, x: Tensor) -> float:
    model = uv.split(net, x, prepare=False).in_double()
    jacobian = torch.autograd.functional.jacobian(model.features, x[:1].double())
    return largest(jacobian.flatten(0, 1).flatten(1))


def test_a_chain_of_matrices_is_merged_into_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 9), nn.Linear(9, 30), nn.Linear(30, 5), nn.Linear(5, 3)
    ).eval()
    product = net[3].weight.double() @ net[2].weight.double() @ net[1].weight.double()
    assert lipschitz_bound(net, images()).value == pytest.approx(largest(product), rel=2e-9)


class Standardise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("std", torch.tensor([0.2, 1.0, 5.0]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / self.std


def test_normalisation_and_batch_norm_fold_into_the_kernel() -> None:
    """The same constant as the network that is folded by hand, and well below the product of the parts."""
    torch.manual_seed(0)
    layer, norm = conv(padding=1, bias=False).double(), settled_norm().double()
    net = (
        nn.Sequential(Standardise(), layer, norm, nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).double().eval()
    )
    folded = nn.Conv2d(3, 4, 3, padding=1).double()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        folded.weight.copy_(layer.weight * scale[:, None, None, None] / net[0].std.double())
    by_hand = nn.Sequential(folded, nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).double().eval()
    x = images().double()
    found = lipschitz_bound(net, x).value
    assert found == pytest.approx(lipschitz_bound(by_hand, x).value, rel=1e-9)
    assert found < convolution_norm(layer.weight, [8, 8], padding=1) * 5 * scale.abs().max()
    prepared = uv.split(net.float(), images())  # the folded copy rounds; the bound is of the user's layers
    assert lipschitz_bound(prepared).value == pytest.approx(found, rel=1e-6)


def test_sorting_pairs_does_not_cost_a_factor() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), Pairs(), nn.Linear(192, 3)).eval()
    assert lipschitz_bound(net, images()).value == pytest.approx(largest(net[1].weight), rel=1e-8)


class Pairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return max_min(x)


# --- slopes -------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: getattr(torch, name) for name in ("abs", "tanh", "sin", "cos", "atan", "sigmoid")},
    **{
        name: getattr(F, name)
        for name in ("relu", "relu6", "hardtanh", "softplus", "hardsigmoid", "hardswish", "silu", "mish")
    },
    "selu": F.selu, "elu": lambda x: F.elu(x, 1.7), "celu": F.celu, "gelu": F.gelu, "logsigmoid": F.logsigmoid,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"), "leaky": lambda x: F.leaky_relu(x, 1.3),
    "clamp": lambda x: x.clamp(0.1), "neg": lambda x: -x,
}  # fmt: skip


class Elementwise(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.head = function, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(x).flatten(1))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_of_activations_are_largest_and_not_much_larger(name: str) -> None:
    """Against a fine grid of autograd slopes; each supremum is met within a thousandth."""
    grid = torch.linspace(-12, 12, 2_400_001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(ACTIVATIONS[name](grid).sum(), grid)
    steepest = slope.abs().max().item()
    bound = lipschitz_bound(Elementwise(ACTIVATIONS[name]).eval(), torch.rand(2, 1, 2, 2)).value
    assert steepest <= bound <= steepest * 1.001


def test_every_slope_in_the_table_is_tested() -> None:
    tested = {*ACTIVATIONS, "clip", "clamp_min", "clamp_max", "arctan", "log_sigmoid"}
    assert set(rules.SLOPES) <= tested


# --- refusals and the estimate ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x.cumsum(1), "cumsum"),
        (lambda x: x.flatten(2).softmax(2) @ x.flatten(2).transpose(1, 2), "softmax"),
        (lambda x: x * x, "mul"),
        (lambda x: 1 / (x + 1), "reciprocal|div"),
        (lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2), "matmul"),
        (lambda x: x.sort(1)[1].to(x.dtype), "places"),
        (lambda x: F.layer_norm(x, (8,)), "layer_norm"),
    ],
)
def test_operations_without_a_rule_are_named_with_what_to_do(function: Callable, named: str) -> None:
    with pytest.raises(uv.InputError, match=f"({named})(.|\n)*sampled_lipschitz"):
        lipschitz_bound(Body(function).eval(), images())


def test_the_module_of_an_unknown_operation_is_named() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Linear(192, 2)).eval()
    with pytest.raises(uv.InputError, match=r"1 \(softmax\)"):
        lipschitz_bound(net, images())


def test_networks_that_cannot_be_traced_are_explained() -> None:
    net = Body(lambda x: x if x.sum() > 0 else -x).eval()
    with pytest.raises(uv.InputError, match="cannot trace"):
        lipschitz_bound(net, images())
    with pytest.raises(uv.InputError, match="sample"):
        lipschitz_bound(net)


@pytest.mark.parametrize("kind", ["spectral_norm", "orthogonal", "weight_norm"])
def test_computed_weights_are_taken_as_they_come_out_and_the_network_stays(kind: str) -> None:
    torch.manual_seed(0)
    layer = getattr(nn.utils.parametrizations, kind)(nn.Linear(192, 20))
    net, x = nn.Sequential(nn.Flatten(), layer, Pairs(), nn.Linear(20, 3)).eval(), images()
    before = net(x)
    assert lipschitz_bound(net, x).value == pytest.approx(largest(net[1].weight), rel=1e-8)
    assert sampled_lipschitz(net, x).value <= largest(net[1].weight) * ROUND_UP
    assert torch.equal(net(x), before)
    assert nn.utils.parametrize.is_parametrized(layer)


def test_the_table_of_factors_multiplies_up_to_the_bound_of_a_chain(small_net: nn.Module) -> None:
    found = lipschitz_bound(small_net, torch.rand(2, 1, 6, 6))
    assert [name for name, _ in found.factors] == ["0 (conv2d)", "3 (conv2d)"]
    assert math.prod(factor for _, factor in found.factors) == pytest.approx(found.value)
    assert "3 (conv2d)" in str(found)


def test_sampling_finds_the_norm_of_a_linear_network_and_is_reproducible() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 3)).eval()
    found = sampled_lipschitz(net, images(40), iterations=60, seed=3)
    assert found.value == pytest.approx(largest(net[1].weight), rel=1e-3)
    assert found.value <= largest(net[1].weight) * ROUND_UP
    assert found == sampled_lipschitz(net, images(40), iterations=60, seed=3)
    flat = sampled_lipschitz(Body(lambda x: torch.zeros_like(x)).eval(), images())
    assert flat == Lipschitz(0.0, "estimated", (), flat.assumptions)


def test_sampling_follows_attention_which_has_no_rule() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, 32, dropout=0.0, batch_first=True), nn.Flatten(),
        nn.Linear(3 * 64, 3),
    ).double().eval()  # fmt: skip
    x = images()[:4].double()
    jacobian = torch.autograd.functional.jacobian(lambda one: net[:3](one[None])[0], x[0])
    slope = largest(jacobian.flatten(1))
    assert sampled_lipschitz(net, x[:1], iterations=60).value == pytest.approx(slope, rel=0.05)
    with pytest.raises(uv.InputError, match="estimate-only"):
        lipschitz_bound(net, x)
