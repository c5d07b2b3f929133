"""VGG-11 with batch norm for small images: convolutions and max pooling, one linear layer behind them."""

from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.zoo.families.width import check_shape, scaled

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Channels of the convolutions before each max pooling."""


class VGG(nn.Module):
    """Convolutions with batch norm ``features``, global average pooling, linear head ``classifier``.

    Pooling rounds sizes up, so 28 x 28 images pass too; 32 x 32 images halve exactly and end as one pixel.
    """

    def __init__(self, stages: list[list[int]], classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for stage in stages:
            for after in stage:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def vgg11_bn(width: float = 1.0, classes: int = 10, channels: int = 3) -> VGG:
    """VGG-11 (Simonyan & Zisserman 2015, arXiv 1409.1556) with batch norm, untrained: images (n, c, h, w) → logits.

    Its CIFAR form has one linear layer. Convolutions of 64 to 512 channels times ``width``, each rounded to the
    nearest whole number, at least 1. Keys are those of weights in circulation: features.0, features.1, …,
    classifier. Raises InputError for settings out of range.
    """
    width, classes, channels = check_shape(width, classes, channels)
    return VGG([[scaled(c, width) for c in stage] for stage in STAGES], classes, channels)
