"""The families have the keys and sizes of weights in circulation, at any width, and can be split."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import InputError
from uncannyvalley.zoo.families import FAMILIES

Shapes = dict[str, tuple[int, ...]]

each_family = pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES)


def norm(name: str, channels: int) -> Shapes:
    vectors = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def convolution(name: str, before: int, after: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (after, before, kernel, kernel)}


def linear(name: str, before: int, after: int) -> Shapes:
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}


def resnet18_layout() -> Shapes:
    shapes = convolution("conv1", 3, 64, 3) | norm("bn1", 64)
    before = 64
    for stage, after in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            at = f"layer{stage}.{block}"
            shapes |= convolution(f"{at}.conv1", before, after, 3) | norm(f"{at}.bn1", after)
            shapes |= convolution(f"{at}.conv2", after, after, 3) | norm(f"{at}.bn2", after)
            if before != after:
                shapes |= convolution(f"{at}.shortcut.0", before, after, 1) | norm(f"{at}.shortcut.1", after)
            before = after
    return shapes | linear("linear", 512, 10)


def wide_resnet28_4_layout() -> Shapes:
    shapes = convolution("conv1", 3, 16, 3)
    before = 16
    for stage, after in enumerate((64, 128, 256), start=1):
        for block in range(4):
            at = f"block{stage}.layer.{block}"
            shapes |= norm(f"{at}.bn1", before) | convolution(f"{at}.conv1", before, after, 3)
            shapes |= norm(f"{at}.bn2", after) | convolution(f"{at}.conv2", after, after, 3)
            if before != after:
                shapes |= convolution(f"{at}.convShortcut", before, after, 1)
            before = after
    return shapes | norm("bn1", 256) | linear("fc", 256, 10)


def densenet121_layout() -> Shapes:
    shapes = convolution("conv1", 3, 64, 3)
    now = 64
    for block, layers in enumerate((6, 12, 24, 16), start=1):
        for layer in range(layers):
            at = f"dense{block}.{layer}"
            shapes |= norm(f"{at}.bn1", now) | convolution(f"{at}.conv1", now, 128, 1)
            shapes |= norm(f"{at}.bn2", 128) | convolution(f"{at}.conv2", 128, 32, 3)
            now += 32
        if block < 4:
            shapes |= norm(f"trans{block}.bn", now) | convolution(f"trans{block}.conv", now, now // 2, 1)
            now //= 2
    return shapes | norm("bn", now) | linear("linear", now, 10)


def vgg11_bn_layout() -> Shapes:
    shapes: Shapes = {}
    channels = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    for place, before, after in zip((0, 4, 8, 11, 15, 18, 22, 25), channels, channels[1:], strict=False):
        shapes |= convolution(f"features.{place}", before, after, 3) | {f"features.{place}.bias": (after,)}
        shapes |= norm(f"features.{place + 1}", after)
    return shapes | linear("classifier", 512, 10)


LAYOUTS = {
    "resnet18": (resnet18_layout, 11_173_962),
    "wideresnet28-4": (wide_resnet28_4_layout, 5_849_050),
    "densenet121": (densenet121_layout, 6_956_298),
    "vgg11-bn": (vgg11_bn_layout, 9_231_114),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_keys_and_shapes_are_those_in_circulation(name: str) -> None:
    layout, parameters = LAYOUTS[name]
    net = FAMILIES[name]()
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == layout()
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_size_of_a_wide_network_by_formula() -> None:
    """Weights of WideResNet-28-k from its stages a → b: 9ab + 63b² of convolutions, ab where projected."""
    for widening in (1, 2, 4):
        stages = [16, 16 * widening, 32 * widening, 64 * widening]
        expected = 27 * 16 + 2 * stages[-1] + 10 * stages[-1] + 10
        for a, b in itertools.pairwise(stages):
            expected += 9 * a * b + 7 * 9 * b * b + (a * b if a != b else 0) + 2 * a + 2 * 7 * b
        net = FAMILIES["wideresnet28-4"](width=widening / 4)
        assert sum(p.numel() for p in net.parameters()) == expected


@each_family
@pytest.mark.parametrize("width", [0.01, 0.1, 0.25, 1 / 3])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)], ids=["cifar", "mnist"])
def test_every_width_gives_logits_and_gradients(
    build: Callable[..., nn.Module], width: float, shape: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    net = build(width=width, classes=7, channels=shape[0])
    x = torch.rand(4, *shape, requires_grad=True)
    logits = net(x)
    assert logits.shape == (4, 7)
    gradients = torch.autograd.grad(logits.square().sum(), [x, *net.parameters()])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert gradients[0].abs().sum() > 0


@each_family
def test_width_scales_the_features_of_the_head(build: Callable[..., nn.Module]) -> None:
    heads = [list(build(width=width).modules())[-1] for width in (0.25, 0.5, 1.0)]
    quarter, half, whole = (head.in_features for head in heads)
    assert (half, whole) == (2 * quarter, 4 * quarter)


@each_family
def test_splits_at_its_only_linear_layer(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(1)
    net, x = build(width=0.25), torch.rand(16, 3, 32, 32)
    with torch.no_grad():
        net(x)  # running statistics that are not the trivial ones
        model = uv.split(net.eval(), x)
        names = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        assert [model.head_name] == names
        logits = net(x)
        torch.testing.assert_close(model.logits_of(x), logits, rtol=0, atol=2e-5 * logits.abs().max().item())


@pytest.mark.parametrize(("name", "folds"), [("resnet18", 20), ("vgg11-bn", 8)])
def test_batch_norm_behind_a_convolution_is_folded(name: str, folds: int) -> None:
    torch.manual_seed(2)
    net, x = FAMILIES[name](width=0.25), torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        net(x)
    assert f"folded {folds} batch norms" in uv.split(net.eval(), x).notes


@pytest.fixture
def _as_users_run_it() -> Iterator[None]:
    """Without the shape checks of the tests, which would refuse wrong types before the package can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_as_users_run_it")
@each_family
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 0}, "width must be a finite number above 0"),
        ({"width": -0.25}, "width must be .* got -0.25"),
        ({"width": math.nan}, "width must be .* got nan"),
        ({"width": math.inf}, "width must be .* got inf"),
        ({"width": "0.25"}, "width must be .* got '0.25'"),
        ({"width": True}, "width must be .* got True"),
        ({"width": None}, "width must be .* got None"),
        ({"classes": 1}, "classes must be a whole number of at least 2, got 1"),
        ({"classes": 10.0}, "classes must be a whole number"),
        ({"channels": 0}, "channels must be a whole number of at least 1, got 0"),
    ],
)
def test_settings_out_of_range(build: Callable[..., nn.Module], settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        build(**settings)


def test_no_dropout_and_nothing_random_in_training(small_images: tuple[Tensor, Tensor]) -> None:
    for build in FAMILIES.values():
        net = build(width=0.1, channels=1)
        assert not any(isinstance(module, nn.Dropout) for module in net.modules())
        x = small_images[0].repeat(1, 1, 4, 4)
        assert torch.equal(net(x), net(x))
