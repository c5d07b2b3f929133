"""DenseNet-121 for small images: every layer of a block sees the outputs of all layers before it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.zoo.families.width import check_shape, scaled

LAYERS = (6, 12, 24, 16)
"""Dense layers in each of the four blocks: with two convolutions each, stem, transitions and head, 121."""


class DenseLayer(nn.Module):
    """x → [new, x] with new = conv₂(relu(bn₂(conv₁(relu(bn₁(x)))))), a bottleneck of 4 × growth channels."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        new = self.conv2(self.relu2(self.bn2(self.conv1(self.relu1(self.bn1(x))))))
        return torch.cat([new, x], dim=1)


class Transition(nn.Module):
    """Halves the channels by a 1 x 1 convolution and the resolution by average pooling."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(before)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(before, before // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return self.pool(self.conv(self.relu(self.bn(x))))


class DenseNet(nn.Module):
    """Stem, four dense blocks with transitions between them, global average pooling, linear head ``linear``."""

    def __init__(self, growth: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * growth, 3, padding=1, bias=False)
        self.dense1 = _dense_block(2 * growth, LAYERS[0], growth)
        now = 2 * growth + LAYERS[0] * growth
        self.trans1 = Transition(now)
        self.dense2 = _dense_block(now // 2, LAYERS[1], growth)
        now = now // 2 + LAYERS[1] * growth
        self.trans2 = Transition(now)
        self.dense3 = _dense_block(now // 2, LAYERS[2], growth)
        now = now // 2 + LAYERS[2] * growth
        self.trans3 = Transition(now)
        self.dense4 = _dense_block(now // 2, LAYERS[3], growth)
        now = now // 2 + LAYERS[3] * growth
        self.bn = nn.BatchNorm2d(now)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(now, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.trans2(self.dense2(x))
        x = self.trans3(self.dense3(x))
        x = self.relu(self.bn(self.dense4(x)))
        return self.linear(self.pool(x).flatten(1))


def _dense_block(before: int, layers: int, growth: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(before + layer * growth, growth) for layer in range(layers)))


def densenet121(width: float = 1.0, classes: int = 10, channels: int = 3) -> DenseNet:
    """DenseNet-121 (Huang et al. 2017, arXiv 1608.06993) in its CIFAR form, untrained: images (n, c, h, w) → logits.

    ``width`` scales the growth rate of 32, rounded to the nearest whole number, at least 1; the stem has twice
    as many channels as the growth rate, a bottleneck four times, and a transition keeps half of its channels.
    Keys are those of weights in circulation: conv1, dense1.0.bn1, …, trans1.bn, …, bn, linear. Images of 8 x 8
    and larger. Raises InputError for settings out of range.
    """
    width, classes, channels = check_shape(width, classes, channels)
    return DenseNet(scaled(32, width), classes, channels)
