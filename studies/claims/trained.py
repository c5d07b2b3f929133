"""Small networks for digits, alike but for one regulariser: trained once, kept in the cache."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import uncannyvalley as uv
from claims.walks import World
from uncannyvalley import data, zoo
from uncannyvalley.storing.files import write_whole
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives import Cost, Loss, Objective, erm, flat, pgd_at, sam
from uncannyvalley.types import Draws

TRAINED_EPS = 0.15
"""Linf radius of adversarial training, and of the attack that robust accuracy is measured with."""


@dataclass(frozen=True)
class Smoothed:
    """Cross-entropy against targets that give ``mass`` of the probability to all classes alike."""

    mass: float

    def __call__(self, network: LiveNetwork, x: Tensor, y: Tensor, draws: Draws) -> Loss:
        seen = network(x)
        total = functional.cross_entropy(seen.logits, y, label_smoothing=self.mass)
        return Loss(total, {"loss": total.detach()}, seen)


@dataclass(frozen=True)
class Mixed:
    """Mixup: the loss of λ x_i + (1 − λ) x_j against both labels, λ uniform, j the next image of the batch.

    Zhang et al. 2018 (arXiv 1710.09412) with Beta(1, 1). One λ an image.
    """

    def __call__(self, network: LiveNetwork, x: Tensor, y: Tensor, draws: Draws) -> Loss:
        weight = draws.uniform(torch.Size([1])).reshape(-1).to(x)
        spread = weight.reshape(-1, *([1] * (x.dim() - 1)))
        seen = network(spread * x + (1 - spread) * x.roll(1, dims=0))
        own, other = (functional.cross_entropy(seen.logits, one, reduction="none") for one in (y, y.roll(1)))
        total = (weight * own + (1 - weight) * other).mean()
        return Loss(total, {"loss": total.detach()}, seen)


@dataclass(frozen=True)
class Variant:
    """How one network of the comparison is trained: everything else is equal."""

    objective: Callable[[], Objective]
    weight_decay: float = 0.0
    dropout: float = 0.0


VARIANTS: dict[str, Variant] = {
    "plain": Variant(erm),
    "weight decay": Variant(erm, weight_decay=1.0),
    "dropout": Variant(erm, dropout=0.3),
    "label smoothing": Variant(lambda: Objective("smoothed", {"mass": 0.1}, Smoothed(0.1), Cost(1, 1))),
    "mixup": Variant(lambda: Objective("mixup", {"alpha": 1.0}, Mixed(), Cost(1, 1))),
    "SAM": Variant(lambda: sam(erm(), 0.2)),
    "flatness": Variant(lambda: flat(erm(), 0.1)),
    "PGD-AT": Variant(lambda: pgd_at(eps=TRAINED_EPS, steps=5)),
}
"""Weights and radii were set before any of these networks was measured; those of SAM, flatness and PGD-AT are those of
studies/training/plans/digits.toml. AdamW's weight decay is decoupled: 1.0 shrinks weights by about half in all."""

EPOCHS = 12


def untrained(variant: Variant) -> nn.Sequential:
    """The demo's network, with dropout in front of its head where the variant has some."""
    layers = list(zoo.demo_network())
    if variant.dropout:
        layers.insert(len(layers) - 1, nn.Dropout(variant.dropout))
    return nn.Sequential(*layers)


def network_of(world: World, name: str, seed: int) -> uv.SplitModel:
    """The network of a variant and a seed, ready to be walked; trained where the cache lacks it."""
    return _network_of(world, name, seed)


@cache
def _network_of(world: World, name: str, seed: int) -> uv.SplitModel:
    from safetensors.torch import load_file, save_file

    variant = VARIANTS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = untrained(variant)
    path: Path = world.path(f"trained-{name.replace(' ', '-')}-{seed}-{world.few(EPOCHS, 1)}.safetensors")
    if not path.exists():
        recipe = uv.Recipe(
            epochs=world.few(EPOCHS, 1), batch_size=64, optimizer="adamw", learning_rate=4e-3,
            weight_decay=variant.weight_decay, schedule="one-cycle", seed=seed, validation_share=0.0, selection="last",
        )  # fmt: skip
        fitted = uv.fit(net, data.load("digits:train"), None, variant.objective(), recipe, accelerator="cpu")
        write_whole(path, lambda scratch: save_file(fitted.network.state_dict(), scratch))
    net.load_state_dict(load_file(path))
    return uv.split(net.eval(), data.digits("test")[:8])
