"""Named models → nn.Module in evaluation mode, from images in [0, 1] to logits."""

import hashlib
import importlib.util
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from uncannyvalley import data
from uncannyvalley.errors import InputError, unknown_name

DEMO_RECIPE = "digits-cnn-1"
"""Names the demo network's cached weights; changes whenever the recipe below does."""


def load(spec: str, arguments: Mapping[str, str] | None = None) -> nn.Module:
    """The network that ``spec`` names: ``demo``, or ``path/to/file.py:callable``.

    The file is executed: name only files you trust. ``arguments`` are passed to the callable as text,
    or as the type that the callable's annotation states.
    """
    if spec == "demo":
        if arguments:
            raise InputError(f"the demo model takes no arguments, got {', '.join(arguments)}")
        return demo()
    if ".py" in spec:
        return from_file(spec, arguments or {})
    raise unknown_name("model", spec, ["demo", "path/to/file.py:callable"])


def from_file(spec: str, arguments: Mapping[str, str]) -> nn.Module:
    """Run FILE.py and call what the last colon separates."""
    file, _, name = spec.rpartition(":")
    path = Path(file).expanduser()
    if not file or not name:
        raise InputError(f"model {spec!r} names no callable; write path/to/file.py:callable")
    if not path.is_file():
        raise InputError(f"model file {file!r} does not exist; check the path before the last colon")
    sys.path.insert(0, str(path.parent.resolve()))  # so that the file can import its neighbours
    try:
        build = _callable_in(path, name)
        net = build(**_typed(build, arguments))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{spec} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(net, nn.Module):
        raise InputError(f"{spec} must return a torch.nn.Module, it returned {type(net).__name__}")
    return net


def _callable_in(path: Path, name: str) -> Callable[..., Any]:
    module_spec = importlib.util.spec_from_file_location(f"uncanny_user_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"callable in {path.name}", name, known)
    return found


def _typed(build: Callable[..., Any], arguments: Mapping[str, str]) -> dict[str, Any]:
    """Each argument as its annotated type; text where there is none."""
    parameters = inspect.signature(build, eval_str=True).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    typed: dict[str, Any] = {}
    for name, text in arguments.items():
        if name not in parameters and not takes_any:
            raise unknown_name("model argument", name, parameters)
        annotation = parameters[name].annotation if name in parameters else inspect.Parameter.empty
        if annotation is inspect.Parameter.empty:
            typed[name] = text
            continue
        try:
            typed[name] = TypeAdapter(annotation).validate_strings(text)
        except ValidationError as error:
            raise InputError(
                f"model argument {name}={text!r} is no {annotation}: {error.errors()[0]['msg']}"
            ) from error
    return typed


def fingerprint(net: nn.Module) -> str:
    """SHA-256 over the modules' description and every parameter and buffer, saved or not."""
    digest = hashlib.sha256(str(net).encode())
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def demo_network(width: int = 16) -> nn.Sequential:
    """A small ReLU CNN for 1 x 8 x 8 digits, untrained: six convolutions, average pooling, linear head."""
    channels = [1, width, width, 2 * width, 2 * width, 2 * width, 2 * width]
    layers: list[nn.Module] = []
    for depth, (before, after) in enumerate(itertools.pairwise(channels)):
        stride = 2 if after > before and depth > 0 else 1
        layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


def cache_folder() -> Path:
    """Where trained demo weights are kept: $UNCANNY_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("UNCANNY_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "uncannyvalley"


def demo() -> nn.Module:
    """The demo network, trained on the first call and read from the cache afterwards."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = cache_folder() / f"{DEMO_RECIPE}.safetensors"
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        net: nn.Module = demo_network()
        try:
            net.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError):  # not there, or broken: make it anew
            net = _train_demo()
            _save(net, path)
    return net.eval()


def demo_accuracy() -> float:
    """Share of the held-out digits that the demo network gets right."""
    images, net = data.digits("test"), demo()
    with torch.no_grad():
        return (net(images[:]).argmax(dim=1) == images.labels).double().mean().item()


def _save(net: nn.Module, path: Path) -> None:
    """Whole or not at all; a cache that cannot be written costs only the next training."""
    from safetensors.torch import save_file

    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(net.state_dict(), scratch)
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)


def _train_demo(epochs: int = 15, batch: int = 64) -> nn.Module:
    """AdamW with a one-cycle rate, seeded."""
    images = data.digits("train")
    x, y = images[:], images.labels
    torch.manual_seed(0)
    with torch.enable_grad():
        net = demo_network()
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
        steps = epochs * (len(x) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for first in range(0, len(x) - batch + 1, batch):
                chosen = order[first : first + batch]
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
                optimizer.step()
                schedule.step()
    return net
