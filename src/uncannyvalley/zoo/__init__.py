"""Named models → nn.Module in evaluation mode, from images in [0, 1] to logits."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from uncannyvalley import data
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.zoo.digits_network import DEMO_RECIPE, cache_folder, demo, demo_accuracy, demo_network
from uncannyvalley.zoo.family_models import from_family
from uncannyvalley.zoo.hugging_face import from_hub
from uncannyvalley.zoo.input_transform import NORMALISATIONS
from uncannyvalley.zoo.libraries import from_robustbench, from_timm, from_torchvision
from uncannyvalley.zoo.named import Named
from uncannyvalley.zoo.python_file import from_file
from uncannyvalley.zoo.weights import fingerprint, load_weights

__all__ = [
    "DEMO_RECIPE", "KINDS", "NORMALISATIONS", "cache_folder", "data", "demo", "demo_accuracy", "demo_network", "fingerprint",
    "from_file", "load", "load_weights",
]  # fmt: skip

KINDS: dict[str, str] = {
    "demo": "a small network for the digits, trained on the first use",
    "path/to/file.py:callable": "an nn.Module that a function of yours returns (the file is run)",
    "family:NAME": "resnet18, wideresnet28-4, densenet121 or vgg11-bn for CIFAR; arguments width, classes, channels, "
    "normalise; untrained without weights",
    "hf:ORG/NAME": "an image classifier of the Hugging Face hub, or of a folder, with its image processor (extra hf)",
    "timm:NAME": "a model of timm with its own transform (needs timm)",
    "torchvision:NAME": "a model of torchvision with the transform of its weights (needs torchvision)",
    "robustbench:NAME[:DATASET[:THREAT]]": "a model of RobustBench, by default for cifar10 and Linf (needs robustbench)",
}
"""What ``load`` takes: form → what it is."""

_LOADERS: dict[str, Callable[[str, Mapping[str, str], bool], Named]] = {
    "family": from_family,
    "hf": from_hub,
    "timm": from_timm,
    "torchvision": from_torchvision,
    "robustbench": from_robustbench,
}


def load(
    spec: str, arguments: Mapping[str, str] | None = None, *, weights: str | Path | None = None
) -> nn.Module:
    """The network that ``spec`` names, in one of the forms that KINDS lists.

    The file of ``path/to/file.py:callable`` is executed: name only files you trust. ``arguments`` are passed to
    the callable as text, or as the type that the callable's annotation states; other kinds know theirs.
    ``weights`` is a file whose state dict takes the place of the weights that come with the name; nothing in it
    is executed (see ``load_weights``).

    Raises InputError for names, arguments and weights that cannot be used.
    """
    kind, colon, rest = spec.partition(":")
    if spec == "demo":
        if arguments:
            raise InputError(f"the demo model takes no arguments, got {', '.join(arguments)}")
        if weights is not None:
            raise InputError("the demo model trains its own weights; give weights to another model")
        return demo()
    if colon and kind in _LOADERS:
        if not rest:
            raise InputError(f"model {spec!r} lacks a name; write {kind}:NAME")
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
            torch.manual_seed(0)  # untrained networks are the same in each call
            named = _LOADERS[kind](rest, arguments or {}, weights is None)
    elif ".py" in spec:
        net = from_file(spec, arguments or {})
        named = Named(net, net)
    else:
        raise unknown_name("model", spec, KINDS)
    if weights is not None:
        load_weights(named.inner, weights)
    return named.net
