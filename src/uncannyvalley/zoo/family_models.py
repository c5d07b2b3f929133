"""The in-house CIFAR families by name, with the normalisation of the data they are trained on."""

from collections.abc import Mapping

from uncannyvalley.errors import unknown_name
from uncannyvalley.zoo.input_transform import NORMALISATIONS, InputTransform, WithInputTransform
from uncannyvalley.zoo.named import Named, known_arguments


def from_family(name: str, arguments: Mapping[str, str], pretrained: bool) -> Named:
    """A family of ``zoo.families`` with arguments width, classes, channels and normalise.

    ``normalise`` is one of NORMALISATIONS, by default cifar10 for three channels and none otherwise. The network is
    untrained, with the same random weights in each call, unless weights are loaded into it.

    Raises InputError for unknown families and arguments.
    """
    from uncannyvalley.zoo.families import FAMILIES

    if name not in FAMILIES:
        raise unknown_name("family", name, FAMILIES)
    known = {"width": float, "classes": int, "channels": int, "normalise": str}
    read = known_arguments(arguments, known)
    channels = read.get("channels", 3)
    normalise = read.pop("normalise", "cifar10" if channels == 3 else "none")
    if normalise not in NORMALISATIONS:
        raise unknown_name("normalisation", normalise, NORMALISATIONS)
    net = FAMILIES[name](**read)
    transform = InputTransform(channels, *NORMALISATIONS[normalise])
    return Named(WithInputTransform(transform, net).eval(), net)
