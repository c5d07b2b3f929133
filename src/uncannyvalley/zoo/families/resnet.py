"""ResNet-18 for small images: a 3 x 3 stem of stride 1 and no max pooling."""

from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.zoo.families.width import check_shape, scaled


class BasicBlock(nn.Module):
    """relu(x' + bn₂(conv₂(relu(bn₁(conv₁(x)))))), x' being x or its 1 x 1 projection."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(residual + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of basic blocks, global average pooling, linear head ``linear``."""

    def __init__(self, stages: list[int], blocks: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stages[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stages[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(stages[0], stages[0], blocks, stride=1)
        self.layer2 = _stage(stages[0], stages[1], blocks, stride=2)
        self.layer3 = _stage(stages[1], stages[2], blocks, stride=2)
        self.layer4 = _stage(stages[2], stages[3], blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(stages[3], classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(self.pool(x).flatten(1))


def _stage(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(before, after, stride)
    return nn.Sequential(first, *(BasicBlock(after, after, 1) for _ in range(blocks - 1)))


def resnet18(width: float = 1.0, classes: int = 10, channels: int = 3) -> ResNet:
    """ResNet-18 (He et al. 2016, arXiv 1512.03385) in its CIFAR form, untrained: images (n, c, h, w) → logits.

    Stages of 64, 128, 256 and 512 channels times ``width``, each rounded to the nearest whole number, at
    least 1. Keys are those of weights in circulation: conv1, bn1, layer1.0.conv1, …, layer2.0.shortcut.0,
    linear. Images of 8 x 8 and larger. Raises InputError for settings out of range.
    """
    width, classes, channels = check_shape(width, classes, channels)
    return ResNet([scaled(c, width) for c in (64, 128, 256, 512)], 2, classes, channels)
