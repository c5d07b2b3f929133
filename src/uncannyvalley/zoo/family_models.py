"""The in-house families by name, with the normalisation of the data they are trained on."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from uncannyvalley.errors import unknown_name
from uncannyvalley.zoo.input_transform import NORMALISATIONS, InputTransform, WithInputTransform
from uncannyvalley.zoo.named import Named, known_arguments


def families() -> dict[str, Callable[..., nn.Module]]:
    """Name → builder of every family."""
    from uncannyvalley.zoo.families import FAMILIES, SMALL_NETWORKS

    return {**FAMILIES, **SMALL_NETWORKS}


def settings_of(name: str) -> dict[str, Callable[[str], Any]]:
    """Settings of a family's builder, each with what reads its text."""
    reads = {"width": float, "classes": int, "channels": int, "size": int}
    return {one: reads[one] for one in inspect.signature(families()[name]).parameters}


def from_family(name: str, arguments: Mapping[str, str], pretrained: bool) -> Named:
    """A family of ``zoo.families`` with arguments width, classes, channels and normalise, and size for cnn-a.

    ``normalise`` is one of NORMALISATIONS, by default cifar10 for three channels and none otherwise. The network is
    untrained, with the same random weights in each call, unless weights are loaded into it.

    Raises InputError for unknown families and arguments.
    """
    builders = families()
    if name not in builders:
        raise unknown_name("family", name, builders)
    read = known_arguments(arguments, {**settings_of(name), "normalise": str})
    channels = read.get("channels", 3)
    normalise = read.pop("normalise", "cifar10" if channels == 3 else "none")
    if normalise not in NORMALISATIONS:
        raise unknown_name("normalisation", normalise, NORMALISATIONS)
    net = builders[name](**read)
    transform = InputTransform(channels, *NORMALISATIONS[normalise])
    return Named(WithInputTransform(transform, net).eval(), net)
