"""Named models → nn.Module in evaluation mode, from images in [0, 1] to logits."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from uncannyvalley import data
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.zoo.digits_network import DEMO_RECIPE, cache_folder, demo, demo_accuracy, demo_network
from uncannyvalley.zoo.family_models import from_family
from uncannyvalley.zoo.fitted import FILE, fitted_file, from_fitted
from uncannyvalley.zoo.hugging_face import from_hub
from uncannyvalley.zoo.input_transform import NORMALISATIONS
from uncannyvalley.zoo.libraries import from_robustbench, from_timm, from_torchvision
from uncannyvalley.zoo.named import Named
from uncannyvalley.zoo.python_file import from_file
from uncannyvalley.zoo.weights import fingerprint, load_weights

__all__ = [
    "DEMO_RECIPE", "KINDS", "NORMALISATIONS", "cache_folder", "data", "demo", "demo_accuracy", "demo_network", "fingerprint",
    "from_file", "load", "load_weights", "runs_code",
]  # fmt: skip

KINDS: dict[str, str] = {
    "demo": "a small network for the digits, trained on the first use",
    "path/to/file.py:callable": "an nn.Module that a function of yours returns (the file is run)",
    "path/to/fitted": "a folder that uncanny train wrote, or its network.safetensors; argument file=FILE.py:CALLABLE "
    "where a Python file made the network",
    "family:NAME": "resnet18, wideresnet28-4, densenet121 or vgg11-bn for CIFAR, small-cnn or cnn-a for small images; "
    "arguments width, classes, channels, normalise (cnn-a: size); untrained without weights",
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
    spec: str,
    arguments: Mapping[str, str] | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
) -> nn.Module:
    """The network that ``spec`` names, in one of the forms that KINDS lists.

    The file of ``path/to/file.py:callable`` is executed: name only files you trust. ``arguments`` are passed to
    the callable as text, or as the type that the callable's annotation states; other kinds know theirs.
    ``weights`` is a file whose state dict takes the place of the weights that come with the name; nothing in it
    is executed (see ``load_weights``). ``seed`` decides the weights of an untrained network: the same in each call.

    Raises InputError for names, arguments and weights that cannot be used.
    """
    if spec == "demo":
        if arguments:
            raise InputError(f"the demo model takes no arguments, got {', '.join(arguments)}")
        if weights is not None:
            raise InputError("the demo model trains its own weights; give weights to another model")
        return demo()
    if (file := fitted_file(spec)) is not None:
        if weights is not None:
            raise InputError(
                f"{spec} is a fitted network with its own weights; give weights to another model"
            )
        return from_fitted(file, arguments or {}, _untrained)
    named = _named(spec, arguments or {}, pretrained=weights is None, seed=seed)
    if weights is not None:
        load_weights(named.inner, weights)
    return named.net


def runs_code(spec: str, arguments: Mapping[str, str]) -> bool:
    """Whether ``load`` would run a file: only what a user named just now may, never what a folder remembers."""
    return ".py" in spec or FILE in arguments


def _named(spec: str, arguments: Mapping[str, str], *, pretrained: bool, seed: int) -> Named:
    kind, colon, rest = spec.partition(":")
    if not (colon and kind in _LOADERS) and ".py" not in spec:
        raise unknown_name("model", spec, KINDS)
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.manual_seed(seed)
        if not (colon and kind in _LOADERS):
            net = from_file(spec, arguments)
            return Named(net, net)
        if not rest:
            raise InputError(f"model {spec!r} lacks a name; write {kind}:NAME")
        return _LOADERS[kind](rest, arguments, pretrained)


def _untrained(spec: str, arguments: Mapping[str, str]) -> nn.Module:
    """What ``spec`` names, without looking for its weights."""
    if spec == "demo":
        return demo_network().eval()
    # a robustbench model cannot be made without its weights
    return _named(spec, arguments, pretrained=spec.startswith("robustbench:"), seed=0).net
