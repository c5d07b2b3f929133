"""Claim 8: what third-order terms cost, over what the second order of the same thing costs."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from claims import pictures
from claims.verdicts import Criterion, Outcome
from claims.walks import World
from uncannyvalley import data, measures
from uncannyvalley.analysis.summary import Figure
from uncannyvalley.head import Head

DEARER = Criterion("CPU time of the third order over that of the second", "above", 2.0, ".2f")
"""The claim that third-order terms are costly is taken to be: more than twice what the second order costs."""

ROUNDS = 9
IMAGES = 32

PLACES = (
    "head, ResNet-20",
    "last convolution, ResNet-20",
    "vocabulary of 32 000",
    "one direction, transformer MLP",
    "whole block, transformer MLP, estimated",
)

Run = Callable[[], object]


class SmallTransformer(nn.Module):
    """Two layers of width 64 over the 16 patches of an 8 x 8 image; random weights."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True) for _ in range(2)]
        self.embed, self.blocks, self.head = nn.Linear(4, 64), nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.unfold(x, 2, stride=2).mT
        return self.head(self.blocks(self.embed(patches)).mean(dim=1))


def runs(world: World) -> dict[str, tuple[Run, Run]]:
    """Place → (second order, third order)."""
    found: dict[str, tuple[Run, Run]] = {}
    if not world.quick:
        images = world.photographs("cifar10_resnet20", IMAGES)
        model = uv.split(world.original("cifar10_resnet20"), images[:8], prepare=False)
        for place, layer in zip(PLACES[:2], ("15", "12.main.3"), strict=True):
            found[place] = _orders(model, images[:], images.labels, layer)
    found[PLACES[2]] = _vocabulary(world.few(32_000, 500))
    torch.manual_seed(0)
    net, digits = SmallTransformer().eval(), data.digits("test").first(world.few(IMAGES, 4))
    model = uv.split(net, digits[:], prepare=False)
    x, y = digits[:], digits.labels
    direction = torch.randn(net.get_submodule("blocks.1.linear1").weight.shape)
    found[PLACES[3]] = tuple(  # type: ignore[assignment]
        lambda order=order: uv.directional_derivative(model, x, y, "blocks.1.linear1", direction, order)
        for order in (2, 3)
    )
    found[PLACES[4]] = _orders(
        model, x, y, "blocks.1.linear1", method="estimate", backwards=world.few(60, 10)
    )
    return found


def _orders(model: uv.SplitModel, x: Tensor, y: Tensor, layer: str, **options: object) -> tuple[Run, Run]:
    def ask(quantity: str) -> Run:
        return lambda: uv.curvature(model, x, y, layer, quantity, **options)  # type: ignore[arg-type]

    return ask("relative_sharpness"), ask("third_order")


def _vocabulary(words: int) -> tuple[Run, Run]:
    """log κ and log τ of fresh probes at a random head."""
    draw = torch.Generator().manual_seed(0)
    head = Head(torch.randn(words, 256, generator=draw) / 16, None)
    features = 8 * torch.randn(32, 256, generator=draw)
    _ = head.squared_norms
    rows = torch.arange(len(features))
    probe = uv.Probe(features, features, rows * 0, None, rows, features, head.logits(features), head)
    known = measures.available()

    def ask(name: str) -> Run:
        return lambda: known[name](replace(probe))

    return ask("log_relative_sharpness"), ask("log_third_order")


def ratios(second: Run, third: Run, rounds: int) -> np.ndarray:
    """CPU time of ``third`` over that of ``second``, round by round, one after the other; the first round is not counted."""
    found = []
    for number in range(rounds + 1):
        taken = []
        for run in (second, third):
            started = time.process_time()
            run()
            taken.append(time.process_time() - started)
        if number:
            found.append(taken[1] / max(taken[0], 1e-9))
    return np.array(found)


def spread(values: np.ndarray) -> Figure:
    """Median with the middle nine tenths of the rounds."""
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return Figure(float(middle), float(low), float(high))


def measure(world: World) -> Outcome:
    """Five places, one after the other."""
    timed = {place: ratios(*pair, world.few(ROUNDS, 2)) for place, pair in runs(world).items()}
    parts = [DEARER.judge(spread(values), of=place) for place, values in timed.items()]

    def draw(path: Path) -> None:
        figure, (axes,) = pictures.sheet(7.4, 2.7, 1)
        pictures.intervals(axes, parts, DEARER.limit, list(timed))
        axes.set_xscale("log")
        axes.set_xticks([0.5, 1, 2, 4, 8, 16], ["½", "1", "2", "4", "8", "16"])
        axes.set_title("CPU time, third order over second")
        pictures.save(figure, path)

    shown = [
        f"{place.split(',')[0]} {part.figure.value:.1f}" for place, part in zip(timed, parts, strict=True)
    ]
    lines = [
        "Ratios of CPU time move from run to run; the interval is that of the rounds. Tables: benchmarks/README.md"
    ]
    return Outcome(parts, "third over second: " + ", ".join(shown), lines, draw)
