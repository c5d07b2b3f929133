"""The network families of the uncanny-valley paper (arXiv 2405.16918) in their CIFAR forms, at any width, and small ones."""

from collections.abc import Callable

from torch import nn

from uncannyvalley.zoo.families.densenet import densenet121
from uncannyvalley.zoo.families.resnet import resnet18
from uncannyvalley.zoo.families.small import SMALL_NETWORKS, cnn_a, small_cnn
from uncannyvalley.zoo.families.vgg import vgg11_bn
from uncannyvalley.zoo.families.wide_resnet import wide_resnet28_4

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "wideresnet28-4": wide_resnet28_4,
    "densenet121": densenet121,
    "vgg11-bn": vgg11_bn,
}
"""Name → builder(width=1.0, classes=10, channels=3) of an untrained network that ends in an nn.Linear."""

__all__ = [
    "FAMILIES", "SMALL_NETWORKS", "cnn_a", "densenet121", "resnet18", "small_cnn", "vgg11_bn", "wide_resnet28_4",
]  # fmt: skip
