"""Wide residual networks: pre-activation blocks whose channels grow instead of their number."""

from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.zoo.families.width import check_shape, scaled

STEM = 16
"""Channels of the first convolution, which no widening factor touches."""


class PreActivationBlock(nn.Module):
    """x' + conv₂(relu(bn₂(conv₁(a)))) with a = relu(bn₁(x)); x' is x, or a projected where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        changes = stride != 1 or before != after
        self.convShortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes else None

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        active = self.relu1(self.bn1(x))
        residual = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return residual + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    """Blocks of one resolution, under the name ``layer``."""

    def __init__(self, before: int, after: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = PreActivationBlock(before, after, stride)
        self.layer = nn.Sequential(first, *(PreActivationBlock(after, after, 1) for _ in range(blocks - 1)))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return self.layer(x)


class WideResNet(nn.Module):
    """Stem, three stages, batch norm, global average pooling, linear head ``fc``."""

    def __init__(self, stages: list[int], blocks: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
        self.block1 = Stage(STEM, stages[0], blocks, stride=1)
        self.block2 = Stage(stages[0], stages[1], blocks, stride=2)
        self.block3 = Stage(stages[1], stages[2], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(stages[2])
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.pool(self.relu(self.bn1(x))).flatten(1))


def wide_resnet28_4(width: float = 1.0, classes: int = 10, channels: int = 3) -> WideResNet:
    """WideResNet-28-4 (Zagoruyko & Komodakis 2016, arXiv 1605.07146), untrained: images (n, c, h, w) → logits.

    ``width`` multiplies the widening factor of 4, so 0.25 is WideResNet-28-1: stages of 64, 128 and 256
    channels times ``width``, each rounded to the nearest whole number, at least 1, behind a stem of 16. No
    dropout. Keys are those of weights in circulation: conv1, block1.layer.0.bn1, …,
    block2.layer.0.convShortcut, bn1, fc. Images of 4 x 4 and larger. Raises InputError for settings out of range.
    """
    width, classes, channels = check_shape(width, classes, channels)
    return WideResNet([scaled(c, width) for c in (64, 128, 256)], (28 - 4) // 6, classes, channels)
