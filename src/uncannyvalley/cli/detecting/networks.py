"""The network behind a detector: loaded by name, and named in the detector's file so that it is found again."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uncannyvalley.cli.options import pairs
from uncannyvalley.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from uncannyvalley.detect.image_detector import ImageDetector
    from uncannyvalley.splitting import SplitModel


@dataclass(frozen=True)
class NetworkName:
    """What ``--model``, ``--model-arg`` and ``--weights`` say."""

    spec: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None

    @property
    def text(self) -> str:
        """As the command line takes it, behind ``--model``."""
        more = [word for name, value in self.arguments.items() for word in ("--model-arg", f"{name}={value}")]
        return shlex.join([self.spec, *more, *(["--weights", self.weights] if self.weights else [])])

    @classmethod
    def read(cls, text: str) -> "NetworkName":
        """The name that ``text`` wrote; InputError for any other text."""
        try:
            spec, *words = shlex.split(text)
            found = list(zip(words[::2], words[1::2], strict=True))
        except ValueError as error:
            raise InputError(f"the name of a network cannot be read: {text!r}; give --model") from error
        if any(option not in ("--model-arg", "--weights") for option, _ in found):
            raise InputError(f"the name of a network cannot be read: {text!r}; give --model")
        arguments = pairs([value for option, value in found if option == "--model-arg"])
        return cls(spec, arguments, next((value for option, value in found if option == "--weights"), None))


@dataclass(frozen=True)
class Network:
    """A loaded network. ``net`` is held here because a SplitModel does not keep it alive."""

    name: NetworkName
    net: "nn.Module"
    model: "SplitModel"


def load_network(name: NetworkName, sample: "Tensor", *, head: str | None, device: str) -> Network:
    """The network of that name, split on ``sample`` and on its device."""
    from uncannyvalley import zoo

    return _split(name, zoo.load(name.spec, name.arguments, weights=name.weights), sample, head, device)


def _split(name: NetworkName, net: "nn.Module", sample: "Tensor", head: str | None, device: str) -> Network:
    from uncannyvalley.run.request import device_of
    from uncannyvalley.splitting import split

    return Network(name, net, split(net, sample, head, device=device_of(device)))


def open_detector(
    path: str, given: NetworkName | None, *, device: str, batch_size: int | None
) -> tuple["ImageDetector", Network]:
    """The detector of a file, on the network given or on the one that the file names.

    A network that is a Python file is only loaded when it is given: loading runs it, and a detector's file from
    elsewhere must not choose what is run. Raises InputError for it, and for any other network than the detector's.
    """
    import torch

    from uncannyvalley import zoo
    from uncannyvalley.checks import check_count
    from uncannyvalley.detect.image_detector import ImageDetector
    from uncannyvalley.detect.saving import about_detector

    about = about_detector(path)
    name = _stored(path, about.model.name) if given is None else given
    shape = about.sample_shape
    sample = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0))
    net = zoo.load(name.spec, name.arguments, weights=name.weights)
    if zoo.fingerprint(net) != about.model.fingerprint:  # said here: its head may have another name
        raise InputError(
            f"{path} was fitted with another network ({about.model.name or 'without a name'}) than {name.text}: their weights differ, "
            "and its false-positive rate would mean nothing here. Name that network with --model, or fit a detector to this one"
        )
    network = _split(name, net, sample, about.model.head or None, device)
    detector = ImageDetector.load(path, network.model)
    if batch_size is not None:
        detector.batch_size = check_count("batch_size", batch_size, 1)
    return detector, network


def given_name(model: str | None, arguments: list[str], weights: str | None) -> NetworkName | None:
    """What the options say; None where no network was named. InputError for arguments of no network."""
    if model is not None:
        return NetworkName(model, pairs(arguments), weights)
    if arguments or weights:
        raise InputError("--model-arg and --weights belong to a network; name it with --model")
    return None


def check_shape(detector: "ImageDetector", x: "Tensor", where: str) -> None:
    """Raise InputError for images of another shape than the detector's."""
    wanted, found = tuple(detector.model.sample_shape), tuple(x.shape[1:])
    if wanted != found:
        raise InputError(
            f"{where} holds images of shape {found} (channels, height, width), and the detector was fitted on "
            f"{wanted}; give images like those"
        )


def _stored(path: str, text: str) -> NetworkName:
    if not text:
        raise InputError(
            f"{Path(path).name} does not say which network it was fitted to; give it with --model"
        )
    from uncannyvalley import zoo

    name = NetworkName.read(text)
    if zoo.runs_code(name.spec, name.arguments):
        raise InputError(
            f"{Path(path).name} was fitted to a network of a Python file, which is run only where you name it yourself: "
            f"--model {text}"
        )
    return name
