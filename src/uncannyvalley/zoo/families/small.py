"""Small networks for small images, quick to train on a CPU: the demo network's own form, and CNN-A."""

from collections.abc import Callable

from torch import nn

from uncannyvalley.checks import check_count
from uncannyvalley.zoo.families.width import check_shape, scaled


def small_cnn(width: float = 1.0, classes: int = 10, channels: int = 3) -> nn.Sequential:
    """The demo network's form, untrained: images (n, c, h, w) → logits.

    Six 3 x 3 convolutions with batch norm and ReLU, two of 16 channels times ``width`` and four of twice as many,
    the third one with stride 2; average pooling, a linear head. Images of any size. Raises InputError for settings
    out of range.
    """
    width, classes, channels = check_shape(width, classes, channels)
    narrow = scaled(16, width)
    layers: list[nn.Module] = []
    before = channels
    for depth, after in enumerate([narrow] * 2 + [2 * narrow] * 4):
        layers += [
            nn.Conv2d(before, after, 3, 2 if depth == 2 else 1, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def cnn_a(width: float = 1.0, classes: int = 10, channels: int = 3, size: int = 32) -> nn.Sequential:
    """CNN-A of the verification literature (Dathathri et al. 2020, arXiv 2010.11645), untrained: images → logits.

    Convolutions of 16 and 32 channels times ``width``, 4 x 4 with stride 2, and linear layers of 100 times ``width``
    and of ``classes``; no batch norm. ``size`` is the edge of the square images: 28 for MNIST, 32 for CIFAR.
    Raises InputError for settings out of range.
    """
    width, classes, channels = check_shape(width, classes, channels)
    edge = check_count("size", size, 4) // 4
    first, second, hidden = (scaled(one, width) for one in (16, 32, 100))
    return nn.Sequential(
        nn.Conv2d(channels, first, 4, 2, padding=1), nn.ReLU(),
        nn.Conv2d(first, second, 4, 2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(second * edge * edge, hidden), nn.ReLU(), nn.Linear(hidden, classes),
    )  # fmt: skip


SMALL_NETWORKS: dict[str, Callable[..., nn.Module]] = {"small-cnn": small_cnn, "cnn-a": cnn_a}
"""Name → builder(width=1.0, classes=10, channels=3) of an untrained network; that of cnn-a also takes size=32."""
