"""Models by name from timm, torchvision and RobustBench, which need a torchvision that fits the installed torch."""

import contextlib
from collections.abc import Iterator, Mapping
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uncannyvalley.data.packages import BESIDE_TORCHVISION, need
from uncannyvalley.errors import InputError, first_line
from uncannyvalley.zoo.digits_network import cache_folder
from uncannyvalley.zoo.input_transform import InputTransform, Resizing, WithInputTransform, prove_equal
from uncannyvalley.zoo.named import Named, known_arguments


def from_timm(name: str, arguments: Mapping[str, str], pretrained: bool) -> Named:
    """``timm.create_model(name)`` behind the resizing, centre crop and normalisation of its pretrained_cfg.

    The argument ``classes`` sets the number of classes for weights of one's own.

    Raises InputError for a missing timm, unknown names, and models that prepare their images in another way.
    """
    timm = _need("timm", f"timm:{name}")
    settings = _classes(arguments, pretrained)
    with _clear_errors(f"timm:{name}"):
        net = timm.create_model(name, pretrained=pretrained, **settings)
        config = timm.data.resolve_model_data_config(net)
        own = timm.data.create_transform(**config, is_training=False)
    for module in net.modules():
        if hasattr(module, "fused_attn"):  # fused attention has no second derivative on the CPU
            module.fused_attn = False
    channels, height, width = config["input_size"]
    share = config.get("crop_pct") or 1.0
    keeps_ratio = config.get("crop_mode", "center") == "center" and height == width
    size = int(height / share) if keeps_ratio else (int(height / share), int(width / share))
    resizing = Resizing(size, (height, width), _interpolation(config["interpolation"]))
    transform = InputTransform(channels, config["mean"], config["std"], resizing)

    def theirs(image: np.ndarray) -> Tensor:
        return own(Image.fromarray(image.squeeze()))

    prove_equal(transform, theirs, f"the evaluation transform of timm:{name}")
    return Named(WithInputTransform(transform, net).eval(), net)


def from_torchvision(name: str, arguments: Mapping[str, str], pretrained: bool) -> Named:
    """``torchvision.models.get_model(name)`` behind the transforms of its default weights.

    The argument ``classes`` sets the number of classes for weights of one's own.

    Raises InputError for a missing or broken torchvision, unknown names, and models that do not classify images.
    """
    models = _need("torchvision.models", f"torchvision:{name}")
    settings = _classes(arguments, pretrained)
    with _clear_errors(f"torchvision:{name}"):
        own = models.get_model_weights(name).DEFAULT.transforms()
        net = models.get_model(name, weights="DEFAULT" if pretrained else None, **settings)
    if not hasattr(own, "crop_size"):
        raise InputError(
            f"torchvision:{name} is no image classifier; only models for classification can be used"
        )
    (edge,), (crop,) = own.resize_size, own.crop_size
    resizing = Resizing(edge, (crop, crop), _interpolation(own.interpolation), bool(own.antialias))
    transform = InputTransform(3, own.mean, own.std, resizing)

    def theirs(image: np.ndarray) -> Tensor:
        return own(torch.from_numpy(image).permute(2, 0, 1))

    prove_equal(transform, theirs, f"the transform of the default weights of torchvision:{name}")
    return Named(WithInputTransform(transform, net).eval(), net)


def from_robustbench(name: str, arguments: Mapping[str, str], pretrained: bool) -> Named:
    """``robustbench.utils.load_model`` for ``NAME[:DATASET[:THREAT]]``; its models take images in [0, 1].

    DATASET is cifar10, cifar100 or imagenet, THREAT Linf, L2 or corruptions. Weights are kept in the cache folder;
    RobustBench itself reads them, as pickles.

    Raises InputError for a missing robustbench, unknown names and failed downloads.
    """
    known_arguments(arguments, {})
    if not pretrained:
        raise InputError("robustbench models come with their weights; leave weights out")
    model, *rest = name.split(":")
    if not model or len(rest) > 2:
        raise InputError(
            f"model 'robustbench:{name}' cannot be read; write robustbench:NAME[:DATASET[:THREAT]]"
        )
    dataset, threat = [*rest, *("cifar10", "Linf")[len(rest) :]]
    utils = _need("robustbench.utils", f"robustbench:{name}")
    with _clear_errors(f"robustbench:{name}"):
        net = utils.load_model(
            model_name=model,
            dataset=dataset,
            threat_model=threat,
            model_dir=str(cache_folder() / "robustbench"),
        )
    return Named(net.eval(), net)


def _need(module: str, spec: str) -> ModuleType:
    package = module.partition(".")[0]
    return need(module, f"model {spec!r}", f"pip install {package} ({BESIDE_TORCHVISION})")


@contextlib.contextmanager
def _clear_errors(spec: str) -> Iterator[None]:
    """Whatever a library raises for its names and downloads, as one clear error."""
    try:
        yield
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"model {spec!r} cannot be loaded ({type(error).__name__}: {reason}). Check the name, and the network "
            "for a first download"
        ) from error


def _classes(arguments: Mapping[str, str], pretrained: bool) -> dict[str, int]:
    """The number of classes, which only weights of one's own can have trained."""
    read = known_arguments(arguments, {"classes": int})
    if read and pretrained:
        raise InputError(
            "the model argument 'classes' would make a random head; give weights that were trained so"
        )
    return {"num_classes": read["classes"]} if read else {}


def _interpolation(given: object) -> str:
    """The name of a way to resize, from a text or one of torchvision's modes."""
    name = str(getattr(given, "value", given))
    return "nearest-exact" if name == "nearest" else name
