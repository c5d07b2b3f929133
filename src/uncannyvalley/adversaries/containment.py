"""Nothing of a library's run stays behind: random states, gradients, warnings and log lines are as they were."""

import importlib
import importlib.metadata
import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.adversaries.adversary import Outcome
from uncannyvalley.checks import check_evaluation_mode, check_images, check_labels, check_logits
from uncannyvalley.errors import InputError
from uncannyvalley.find_head import tensor_of

LibraryAttack = Callable[[nn.Module, Tensor, Tensor, int], Outcome]

SEEDS = 2**32


def library(name: str) -> ModuleType:
    """The library ``name``; InputError with what to install where it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # foolbox imports old names of scipy
            return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f'{name} cannot be imported ({error}); run: pip install "uncannyvalley[attacks]"'
        ) from error


def installed(name: str) -> str:
    """The library with its version, "foolbox 3.3.4"; InputError where it is missing."""
    library(name)
    return f"{name} {importlib.metadata.version(name)}"


def contained(title: str, attack: LibraryAttack, *, classes: int = 2, why: str = "") -> LibraryAttack:
    """``attack`` with its input checked and its traces removed.

    title    of the attack, for messages
    classes  how many the network must have, seen at the first query; ``why`` follows the number in the message
    """

    def run(model: nn.Module, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], seed: int) -> Outcome:
        check_evaluation_mode(model)
        images = check_images(x)
        clean = images.float().clone(memory_format=torch.contiguous_format)
        labels = check_labels(y, len(clean)).to(clean.device)
        _check_place(model, clean)
        called = CalledNetwork(model, labels, classes, f"{title} {why}".strip())
        with ExitStack() as stack:
            for state in (frozen(model), random_states(seed), silence(), torch.enable_grad()):
                stack.enter_context(state)
            try:
                found = attack(called, clean.clone(), labels.clone(), seed % SEEDS)
            except (InputError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise InputError(
                    f"{title} failed on this network and these {len(clean)} images: "
                    f"{type(error).__name__}: {error}"
                ) from error
        return _presentable(title, found, clean)

    return run


class CalledNetwork(nn.Module):
    """The network as a library sees it: logits it may write on, checked at the first query.

    The library gets a copy of the logits: Square overwrites those of the true class.
    """

    def __init__(self, network: nn.Module, labels: Int[Tensor, "n"], classes: int, title: str) -> None:
        super().__init__()
        self.network = network
        self.training = False
        self._labels, self._classes, self._title = labels, classes, title
        self._checked = False

    def forward(self, x: Tensor) -> Tensor:
        logits = tensor_of(self.network(x))
        if not self._checked:
            self._check(logits)
        return logits.clone()

    def _check(self, logits: Tensor) -> None:
        if logits.dim() != 2:
            raise InputError(
                f"the model must map images to logits (n, classes), got shape {tuple(logits.shape)}"
            )
        if logits.shape[1] < self._classes:
            raise InputError(
                f"{self._title} needs at least {self._classes} classes, the network has {logits.shape[1]}"
            )
        check_labels(self._labels, len(self._labels), logits.shape[1])
        check_logits(logits.detach())
        self._checked = True


def _check_place(model: nn.Module, x: Tensor) -> None:
    """A library would move the user's network to the images."""
    places = {parameter.device for parameter in model.parameters()} - {x.device}
    if places:
        raise InputError(
            f"the images are on {x.device} and the network on {places.pop()}; bring both to one device"
        )


def _presentable(title: str, found: Outcome, clean: Float[Tensor, "n ..."]) -> Outcome:
    """Float32 images in [0, 1] beside the clean ones; an image that came back NaN is none that was found."""
    if found.images.shape != clean.shape:
        raise InputError(f"{title} returned images of shape {tuple(found.images.shape)}")
    images = found.images.detach().to(clean)
    broken = ~torch.isfinite(images).flatten(1).all(dim=1)
    images[broken] = clean[broken]
    fooled = found.fooled
    if fooled is not None:
        fooled = fooled.detach().to(clean.device).bool() & ~broken
    return Outcome(images.clamp(0, 1), fooled)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient, so that backward leaves none on it."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def random_states(seed: int) -> Iterator[None]:
    """Python, NumPy and torch draw from ``seed`` inside, and go on as before afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    tracing = sys.gettrace()
    with torch.random.fork_rng(devices=devices):
        try:
            random.seed(seed)
            np.random.seed(seed % SEEDS)  # noqa: NPY002
            torch.manual_seed(seed % SEEDS)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            if sys.gettrace() is not tracing:
                sys.settrace(tracing)  # pyautoattack counts calls with it and leaves none


@contextmanager
def silence() -> Iterator[None]:
    """The libraries' own log lines and warnings, and nothing else's, are dropped."""
    root, ensemble = logging.getLogger(), logging.getLogger("auto-attack")
    placeholder = logging.NullHandler()  # without any handler, the first root-level line would install one

    def not_foolbox(record: logging.LogRecord) -> bool:
        return "foolbox" not in record.pathname

    def nothing(record: logging.LogRecord) -> bool:
        return False

    root.addHandler(placeholder)
    root.addFilter(not_foolbox)
    ensemble.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(foolbox|eagerpy|pyautoattack)\b")
            yield
    finally:
        ensemble.removeFilter(nothing)
        root.removeFilter(not_foolbox)
        root.removeHandler(placeholder)
