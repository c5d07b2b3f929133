"""Networks whose every layer is small enough for its Hessian and third derivative to be formed, and their images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracles import class_gradients, layer_derivative, layer_quantities, weight_blocks
from uncannyvalley.derivatives.passes import differentiable
from uncannyvalley.derivatives.quantities import QUANTITIES
from uncannyvalley.derivatives.sites import INPUT, layer_names
from uncannyvalley.splitting import split

CLASSES = 3


class Residual(nn.Module):
    """A strided block with a shortcut of its own and a ReLU that works in place on the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 2, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(2, 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2)
        self.conv2, self.norm2 = nn.Conv2d(2, 2, 2, padding=1, bias=False), nn.BatchNorm2d(2)
        self.shortcut = nn.Conv2d(2, 2, 1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        inner = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return self.head(self.act(inner[:, :, :-1, :-1] + self.shortcut(x)).mean(dim=(2, 3)))


class Attention(nn.Module):
    """One pre-norm block on (n, tokens, 3): attention by torch's own function, then a GELU layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(3), nn.LayerNorm(3)
        self.qkv, self.proj = nn.Linear(3, 9), nn.Linear(3, 3)
        self.wide, self.narrow = nn.Linear(3, 4), nn.Linear(4, 3)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).unflatten(2, (3, 1, 3)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        x = x + self.narrow(F.gelu(self.wide(self.norm2(x))))
        return self.head(x.mean(dim=1))


class Encoder(nn.Module):
    """torch's own encoder layer, which takes a fused path in evaluation mode where it may."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x).mean(dim=1))


class Shared(nn.Module):
    """One layer that is called twice."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.layer, self.head, self.act = nn.Linear(4, 4), nn.Linear(4, CLASSES), act

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.layer(self.act(self.layer(x.flatten(1))))))


class Windows(nn.Module):
    """Windows of each image go through a layer as images of their own: (n, 3, 4) → (3n, 4)."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.window, self.head, self.act = nn.Linear(4, 3), nn.Linear(9, CLASSES), act

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.window(x.reshape(-1, 4))).reshape(len(x), 9))


class Product(nn.Module):
    """Two branches, multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.stem = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        return self.head(self.a(x) * self.b(x))


class Act(nn.Module):
    """A function as a module."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


def own_relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def maxout(x: Tensor) -> Tensor:
    return x.unflatten(1, (-1, 2)).amax(dim=2)


def dense(act: Callable[[Tensor], Tensor], width: int = 4, classes: int = CLASSES) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, 4), Act(act), nn.Linear(4, width), Act(act), nn.Linear(width, classes)
    )


def conv_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True),
        nn.Conv2d(2, 3, 2, stride=2), nn.BatchNorm2d(3), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(12, CLASSES),
    )  # fmt: skip


def paddings() -> nn.Module:
    """Groups, dilation, stride and every padding there is."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2, stride=(2, 1), padding=(1, 2)), nn.LeakyReLU(0.3),
        nn.Conv2d(4, 2, 2, groups=2, dilation=2, padding="same"), nn.LeakyReLU(0.3),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.LeakyReLU(0.3),
        nn.Conv2d(2, 2, (2, 3), padding=(0, 1), padding_mode="reflect"), nn.LeakyReLU(0.3),
        nn.Conv2d(2, 1, 2, padding=1, padding_mode="replicate"), nn.LeakyReLU(0.3),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, CLASSES),
    )  # fmt: skip


def one_dimension() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 2, 3, padding=2, dilation=2), nn.LeakyReLU(0.3),
        nn.Conv1d(2, 4, 2, groups=2, stride=2), nn.LeakyReLU(0.3),
        nn.Conv1d(4, 2, 3, padding=1, padding_mode="circular"), nn.LeakyReLU(0.3),
        nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


def three_dimensions() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 2, 2, dilation=(1, 2, 1), padding=(0, 1, 0)), nn.LeakyReLU(0.3),
        nn.Conv3d(2, 2, (1, 2, 2), groups=2, stride=2, padding=(0, 1, 1)), nn.LeakyReLU(0.3),
        nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def pools() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2, stride=1), nn.LeakyReLU(0.2),
        nn.Conv2d(2, 2, 2, padding=1), nn.AvgPool2d(2), nn.Hardtanh(-0.2, 0.2),
        nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


class Made(NamedTuple):
    """How a network is made, the shape of its images, and whether it is piecewise linear behind every layer."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    straight: bool


SMALL = (1, 2, 2)
NETWORKS = {
    "conv_norm": Made(conv_norm, (1, 4, 4), True),
    "residual": Made(Residual, (1, 4, 4), True),
    "paddings": Made(paddings, (2, 4, 4), True),
    "one_dimension": Made(one_dimension, (2, 6), True),
    "three_dimensions": Made(three_dimensions, (1, 3, 3, 3), True),
    "pools": Made(pools, (1, 4, 4), True),
    "maxout": Made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 6), Act(maxout), nn.Linear(3, 3)), SMALL, True),
    "own_relu": Made(lambda: dense(own_relu), SMALL, True),
    "windows": Made(lambda: Windows(F.relu), (3, 4), True),
    "curved_windows": Made(lambda: Windows(F.gelu), (3, 4), False),
    "gelu": Made(lambda: dense(F.gelu), SMALL, False),
    "tanh": Made(lambda: dense(torch.tanh), SMALL, False),
    "softplus": Made(lambda: dense(F.softplus), SMALL, False),
    "hardswish": Made(lambda: dense(F.hardswish), SMALL, False),
    "attention": Made(Attention, (3, 3), False),
    "encoder": Made(Encoder, (3, 4), False),
    "shared": Made(Shared, SMALL, False),
    "shared_gelu": Made(lambda: Shared(F.gelu), SMALL, False),
    "product": Made(Product, SMALL, False),
}  # fmt: skip


def image_batch(shape: tuple[int, ...], count: int, seed: int = 3) -> Tensor:
    """Float64 images that every cast to float32 keeps."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)).double()


def ready(make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int = 1) -> nn.Module:
    """A random network in float64 and evaluation mode, with running statistics that are not the trivial ones."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = make().double()
        net(image_batch(shape, 64, seed=0))
    return net.eval()


def network(name: str) -> nn.Module:
    return ready(NETWORKS[name].make, NETWORKS[name].shape)


def images_for(name: str, count: int = 2) -> tuple[Tensor, Tensor]:
    """Images and labels: of each two images one has label 0, whatever its prediction."""
    return image_batch(NETWORKS[name].shape, count), torch.arange(count) % CLASSES


def layers_of(name: str) -> list[str]:
    """All layers that the network itself calls, and the image."""
    names = layer_names(split(network(name), images_for(name)[0], prepare=False))
    return [one for one in names if not one.endswith("out_proj")] + [INPUT]


EVERY_LAYER = [(name, layer) for name in NETWORKS for layer in layers_of(name)]
QUANTITIES_AT_INPUT = [name for name, one in QUANTITIES.items() if not one.relative]


def quantities_at(layer: str) -> list[str]:
    return QUANTITIES_AT_INPUT if layer == INPUT else list(QUANTITIES)


def true_quantities(net: nn.Module, layer: str, image: Tensor, label: Tensor) -> dict[str, float]:
    """Every quantity of one image, from its materialised Hessian and third derivative."""
    with differentiable():
        second = layer_derivative(net, layer, image, label, 2)
        third = layer_derivative(net, layer, image, label, 3)
    return layer_quantities(second, third, weight_blocks(net, layer))


def true_directional(
    net: nn.Module, layer: str, image: Tensor, label: Tensor, along: Tensor, order: int
) -> float:
    """A materialised derivative, contracted with one direction as often as it has axes."""
    with differentiable():
        derivative = layer_derivative(net, layer, image, label, order)
    for _ in range(order):
        derivative = derivative @ along.flatten()
    return derivative.item()


def true_class_gradients(net: nn.Module, layer: str, image: Tensor, *, relative: bool) -> Tensor:
    """Gradient of each logit in the weights (k, p), times Wᵀ where the quantity is relative."""
    gradients = class_gradients(net, layer, image)
    if not relative:
        return gradients
    blocks = weight_blocks(net, layer)
    return (blocks.mT @ gradients.reshape(-1, *blocks.shape)).flatten(1)
