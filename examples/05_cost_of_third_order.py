"""Example 5. What do third-order terms cost on a small transformer?

The field's third experiment. A small vision transformer, trained here for seconds on scikit-learn's digits, is attacked by
PGD while more and more is recorded at every step: nothing but the loss; the second order at the head (relative sharpness
κ, trace, largest eigenvalue); the third order at the head too (τ, in closed form from the probabilities). Then derivatives
of order 1, 2 and 3 along one direction in the weights of an inner layer, by nested differentiation, for which no closed
form exists. All run in turn, several rounds in one process; prints CPU time over that of the bare walk, and over one
forward and backward, as medians and ranges of rounds. About 25 s on one core.

    python examples/05_cost_of_third_order.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from materials import parser_of, quick, run, save
from matplotlib.figure import Figure
from torch import Tensor, nn

import uncannyvalley as uv

COUNT, STEPS, ROUNDS, EPOCHS = 64, 10, quick(9, 3), quick(20, 2)
SECOND = ["loss", "log_relative_sharpness", "log_trace", "log_top_eigenvalue"]
INNER = "blocks.1.grow"


class Block(nn.Module):
    """Attention and a two-layer network, each behind a layer norm. Attention is written out: fused ones have no second backward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asks, self.joins = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        asked = self.asks(self.first(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = asked.unbind(0)
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
        tokens = tokens + self.joins((weights @ value).transpose(1, 2).flatten(2))
        return tokens + self.shrink(nn.functional.gelu(self.grow(self.second(tokens))))


class Transformer(nn.Module):
    """Patches of 2 × 2 pixels, three blocks, mean over tokens, linear head."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(3)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).mT + self.place).mean(dim=1))


def main() -> None:
    given = parser_of(__doc__).parse_args()
    torch.set_num_threads(1)  # CPU time of several threads is no measure of work
    images = uv.data.load("digits")
    net = trained(uv.data.load("digits:train"))
    x, y = images[:COUNT], images.labels[:COUNT]
    with torch.no_grad():
        print(
            f"Accuracy on {len(images)} held-out digits: {(net(images[:]).argmax(dim=1) == images.labels).float().mean():.1%}"
        )
    ratios = rounds(ways(net, x, y))

    print(f"\nCPU time, {COUNT} images, {ROUNDS} rounds in turn (median, range)")
    for name, values in ratios.items():
        print(f"{name:46}{statistics.median(values):7.2f}   {min(values):.2f} to {max(values):.2f}")
    save(drawn(ratios), given.out, "05_cost_of_third_order.png")


def trained(images: uv.data.Images) -> nn.Module:
    torch.manual_seed(0)
    net = Transformer()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[:][chosen]), images.labels[chosen]).backward()
            optimizer.step()
    return net.eval()


def ways(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, tuple[str, Callable[[], object]]]:
    """Name → (what its time is divided by, the work). Those divided by themselves are units."""
    model, attack = uv.split(net, x), uv.attacks.pgd(eps=0.2, step_size=0.02)
    weight = net.get_submodule(INNER).weight
    direction = weight.detach() / weight.detach().norm()

    def walk(measures: list[str]) -> Callable[[], object]:
        return lambda: uv.record(model, x, y, attack, steps=STEPS, measures=measures)

    def along(order: int) -> Callable[[], object]:
        return lambda: uv.directional_derivative(net, x, y, INNER, direction, order)

    def once() -> None:
        torch.autograd.grad(nn.functional.cross_entropy(net(x), y, reduction="sum"), list(net.parameters()))

    walking, passing = "walk, loss recorded (unit)", "a forward and a backward (unit)"
    return {
        walking: (walking, walk(["loss"])),
        "walk + second order at the head": (walking, walk(SECOND)),
        "walk + second and third order at the head": (walking, walk([*SECOND, "log_third_order"])),
        passing: (passing, once),
        "first derivative along a direction inside": (passing, along(1)),
        "second derivative along it": (passing, along(2)),
        "third derivative along it": (passing, along(3)),
    }


def rounds(ways: dict[str, tuple[str, Callable[[], object]]]) -> dict[str, list[float]]:
    """Every way once a round, over its unit of the same round; the first round is thrown away."""
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for lap in range(ROUNDS + 1):
        seconds = {}
        for name, (_, work) in ways.items():
            started = time.process_time()
            work()
            seconds[name] = time.process_time() - started
        for name, (unit, _) in ways.items() if lap else ():
            ratios[name].append(seconds[name] / seconds[unit])
    return ratios


def drawn(ratios: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    names = list(ratios)[::-1]
    middles = [statistics.median(ratios[name]) for name in names]
    reach = [[m - min(ratios[n]) for n, m in zip(names, middles, strict=True)],
             [max(ratios[n]) - m for n, m in zip(names, middles, strict=True)]]  # fmt: skip
    axes.barh(
        names, middles, xerr=reach, color=["#D55E00" if "third" in name else "#7A7A7A" for name in names]
    )
    axes.axvline(1, color="#222222", linewidth=0.8)
    axes.set_xlabel("CPU time over that of its unit (median, range of rounds)")
    return figure


if __name__ == "__main__":
    run(main)
