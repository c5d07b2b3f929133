"""The demo network: a small CNN for scikit-learn's digits, trained once and kept in a cache."""

import os
from pathlib import Path

import torch
from torch import nn

from uncannyvalley import data
from uncannyvalley.storing.cache import cache_folder
from uncannyvalley.zoo.families.small import small_cnn

DEMO_RECIPE = "digits-cnn-1"
"""Names the demo network's cached weights; changes whenever the recipe below does."""


def demo_network(width: int = 16) -> nn.Sequential:
    """A small ReLU CNN for 1 x 8 x 8 digits, untrained: six convolutions, average pooling, linear head."""
    return small_cnn(width / 16, classes=10, channels=1)


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
