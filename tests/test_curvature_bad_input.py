"""What curvature cannot be measured of gets one clear error that names the thing."""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley as uv
from layers import Act, dense, image_batch, images_for, network, ready
from uncannyvalley import InputError

SMALL = (1, 2, 2)


@pytest.fixture(autouse=True)
def _as_users_run_it() -> Iterator[None]:
    """Without the shape checks of the tests, which would refuse wrong types before the package can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


class Unused(nn.Module):
    """One layer is never called, another's output goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.aside = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.used(x.flatten(1)).relu()
        self.last = self.aside(inner)
        return self.head(inner)


class SequenceFirst(nn.Module):
    """Tokens along the first axis, images along the second; the first token is read, or all of them."""

    def __init__(self, first_token: bool) -> None:
        super().__init__()
        self.layer, self.head, self.first_token = nn.Linear(4, 4), nn.Linear(4, 3), first_token

    def forward(self, x: Tensor) -> Tensor:
        inner = self.layer(x.transpose(0, 1)).relu()
        return self.head(inner[0] if self.first_token else inner.mean(dim=0))


class OnceOnly(torch.autograd.Function):
    """A square whose backward may not be differentiated."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, pull: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * pull


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return OnceOnly.apply(x)


def failing(act: nn.Module) -> nn.Module:
    """An operation without a second derivative, with ``act`` behind it."""
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), Fails(), act, nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("name", "layer", "quantity", "says"),
    [
        ("residual", "conv3", "trace", r"unknown layer 'conv3'; did you mean 'conv[12]'\?"),
        ("residual", "imput", "trace", "did you mean 'input'"),
        ("conv_norm", "1", "trace", "layer '1' is .*BatchNorm2d.*nn.Conv2d"),
        ("conv_norm", "2", "trace", "layer '2' is .*ReLU"),
        ("encoder", "block.self_attn.out_proj", "trace", r"out_proj' is never called.*MultiheadAttention"),
        ("encoder", "block.self_attn", "trace", "is .*MultiheadAttention.*nn.Linear"),
        (
            "gelu",
            "1",
            "relative_sharpnes",
            "unknown quantity 'relative_sharpnes'; did you mean 'relative_sharpness'",
        ),
        ("gelu", "input", "relative_sharpness", "relative quantities need weights, and the input has none"),
        ("gelu", "input", "third_order", "relative quantities need weights"),
    ],
)
def test_layers_and_quantities(name: str, layer: str, quantity: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        uv.curvature(network(name), *images_for(name), layer, quantity)
    attack = uv.attacks.pgd(eps=0.1, step_size=0.1)
    with pytest.raises(InputError, match=says.replace("unknown quantity", "unknown measure of a layer")):
        uv.record(network(name), *images_for(name), attack, steps=1, measures=[f"{quantity}@{layer}"])


def test_layers_that_are_not_called() -> None:
    x, y = image_batch(SMALL, 2), torch.tensor([0, 1])
    for layer, says in (("idle", "layer 'idle' is never called"), ("aside", "'aside'")):
        with pytest.raises(InputError, match=says):
            uv.curvature(ready(Unused, SMALL), x, y, layer)
        with pytest.raises(InputError, match=says):
            uv.directional_derivative(ready(Unused, SMALL), x, y, layer, torch.ones(4, 4))


@pytest.mark.parametrize("first_token", [True, False])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_sequence_first_layers(first_token: bool, count: int) -> None:
    """Four tokens: whether the images' number divides them or not, no image may get another's derivative."""
    shape = (4, 4)
    net, x = ready(lambda: SequenceFirst(first_token), shape), image_batch(shape, count)
    y = torch.arange(count) % 3
    with pytest.raises(InputError, match=r"'layer'.*first axis"):
        uv.curvature(net, x, y, "layer", "trace")
    with pytest.raises(InputError, match=r"'layer'.*first axis"):
        uv.directional_derivative(net, x, y, "layer", torch.ones(4, 4))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "estimated"}, "unknown method 'estimated'; did you mean 'estimate'"),
        ({"tolerance": 0.0}, "tolerance is a relative standard error between 0 and 1, got 0.0"),
        ({"tolerance": 5}, "between 0 and 1, got 5"),
        ({"tolerance": float("nan")}, "between 0 and 1, got nan"),
        ({"backwards": 0}, "backwards must be a whole number of at least 10, got 0"),
        ({"seed": -1}, "seed must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"batch_size": -2}, "batch_size must be"),
    ],
)
def test_options(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        uv.curvature(network("gelu"), *images_for("gelu"), "1", "trace", **options)


def test_exact_values_that_would_cost_too_much() -> None:
    wide = ready(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 300), Act(F.gelu), nn.Linear(300, 3)), (1, 4, 4)
    )
    x, y = image_batch((1, 4, 4), 2), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"layer '1'.*exact trace.*4800 weights.*method='estimate'"):
        uv.curvature(wide, x, y, "1", "trace")
    with pytest.raises(InputError, match=r"exact third_derivative.*4800.*'estimate'"):
        uv.curvature(wide, x, y, "1", "third_derivative")


def test_networks_labels_and_images() -> None:
    net, (x, y) = network("conv_norm"), images_for("conv_norm")
    with pytest.raises(InputError, match="classes 0 to 2, got values from 3 to 4"):
        uv.curvature(net, x, y + 3, "0")
    with pytest.raises(InputError, match="one class for each of the 2 images"):
        uv.curvature(net, x, y[:1], "0")
    with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
        uv.curvature(net, x + 1, y, "0")
    with pytest.raises(InputError, match="failed on images of shape"):
        uv.curvature(uv.split(net, x), x[:, :, :1], y, "0")
    with pytest.raises(InputError, match="training mode"):
        uv.curvature(network("conv_norm").train(), x, y, "0")
    model = uv.split(net, x)
    with torch.no_grad():
        net[0].weight += 1
    with pytest.raises(InputError, match="weights changed after split"):
        uv.curvature(model, x, y, "0")


@pytest.mark.parametrize("order", [0, 4, -1])
def test_orders(order: int) -> None:
    with pytest.raises(InputError, match=f"order must be 1, 2 or 3, got {order}"):
        uv.directional_derivative(network("gelu"), *images_for("gelu"), "1", torch.ones(4, 4), order)


@pytest.mark.parametrize(
    ("layer", "shape"), [("1", (4, 3)), ("1", (16,)), ("1", (3, 4, 4)), ("input", (2, 2)), ("5", (4, 3))]
)
def test_shapes_of_directions(layer: str, shape: tuple[int, ...]) -> None:
    given = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=rf"direction at '{layer}' must have shape .*got {given}"):
        uv.directional_derivative(network("gelu"), *images_for("gelu"), layer, torch.ones(shape))


@pytest.mark.parametrize("behind", [nn.Tanh(), nn.ReLU()], ids=["curve behind", "straight behind"])
@pytest.mark.parametrize("quantity", ["trace", "third_order"])
@pytest.mark.parametrize("method", ["exact", "estimate"])
def test_operations_that_may_be_differentiated_once(quantity: str, method: str, behind: nn.Module) -> None:
    """torch says nothing where only the layer's own gradient is asked for, and gives a part of the Hessian."""
    net, x, y = ready(lambda: failing(behind), SMALL), image_batch(SMALL, 2), torch.tensor([0, 1])
    with pytest.raises(InputError, match="has no second derivative in torch"):
        uv.curvature(net, x, y, "1", quantity, method)
    with pytest.raises(InputError, match="has no second derivative in torch"):
        uv.directional_derivative(net, x, y, "1", torch.ones(4, 4), 2)


@pytest.mark.parametrize("quantity", ["trace", "top_eigenvalue", "third_order"])
@pytest.mark.parametrize("method", ["exact", "estimate"])
def test_operations_without_a_second_derivative(quantity: str, method: str) -> None:
    net, x, y = ready(lambda: dense(F.hardsigmoid), SMALL), image_batch(SMALL, 2), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"has no second derivative in torch.*hardsigmoid"):
        uv.curvature(net, x, y, "1", quantity, method)
    with pytest.raises(InputError, match="has no second derivative in torch"):
        uv.directional_derivative(net, x, y, "1", torch.ones(4, 4), 2)


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        ("curvature_along_step@1", "write curvature_along_step@input"),
        ("trace_per_gini@1", "recorded as a logarithm: write log_trace_per_gini"),
        ("log_tracee@1", "unknown measure of a layer 'log_tracee'"),
        ("trace@", "layer ''"),
        ("log_relative_sharpness@input", "the input has none"),
    ],
)
def test_names_of_layer_measures(measure: str, says: str) -> None:
    attack = uv.attacks.pgd(eps=0.1, step_size=0.1)
    with pytest.raises(InputError, match=says):
        uv.record(
            ready(lambda: dense(F.relu), SMALL), *images_for("gelu"), attack, steps=1, measures=[measure]
        )
