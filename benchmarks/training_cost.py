"""What objectives cost: a step of each over a plain step, and over bare forwards and backwards.

    python benchmarks/training_cost.py [--shared ../shared] [--batch 128] [--rounds 7] [--threads 1]

ResNet-20 on CIFAR-10 images and the small digits network, in training mode. A plain step is forward, cross-entropy,
backward and an SGD step with momentum, written by hand; every objective takes the same SGD step, and draws its own random
starts. Beside the flatness regulariser in closed form stands what it replaces: the Hessian of the loss in the head's
weights, materialised with its graph by torch.func or by double backward, from which κ is summed, and then the same
backward through everything.

PGD adversarial training with m steps is compared with m + 1 plain steps' forwards and backwards *to the weights*. The m
inner ones only go to the images and run in evaluation mode, so they may cost less than that. "by hand" is the attack as
tutorials write it: the network left in training mode, ``loss.backward()``, which computes weight gradients at each step
and throws them away.

CPU time, ratios within one round of interleaved steps: median (quartiles) over rounds, after one thrown away; the small
network takes ten times as many rounds.
"""

import copy
import statistics
from collections.abc import Callable, Mapping

import torch
from recording_cost import load_images, load_network, machine
from timing import arguments, console, print_table, timed
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.nn import functional as F

from uncannyvalley import data
from uncannyvalley.attacks.streams import Streams
from uncannyvalley.find_head import find_head
from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives import Loss, Objective, erm, flat, pgd_at, sam, take_gradients, trades
from uncannyvalley.zoo.digits_network import demo_network

STEPS = 7
EPS, STEP_SIZE = 8 / 255, 2 / 255
WEIGHT = 0.1
OURS: dict[str, Objective] = {
    "erm": erm(),
    "erm+flatness": flat(erm(), WEIGHT),
    "erm+log-flatness": flat(erm(), WEIGHT, log=True),
    "erm+sam": sam(erm()),
    "pgd-at": pgd_at(eps=EPS, step_size=STEP_SIZE, steps=STEPS),
    "pgd-at+log-flatness": flat(pgd_at(eps=EPS, step_size=STEP_SIZE, steps=STEPS), WEIGHT, log=True),
    "trades": trades(eps=EPS, step_size=STEP_SIZE, steps=STEPS),
}
BY_HAND = {
    "plain": 1,
    "flatness by torch.func": 1,
    "flatness by double backward": 1,
    f"{STEPS + 1} plain": STEPS + 1,
    "pgd-at by hand": STEPS + 1,
}
"""Run by hand → its passes over the batch."""


class Bench:
    """Steps of one network on one batch, each of its own copy of the weights."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
        self.net, self.x, self.y = net.eval(), x, y
        self.head_name = find_head(net, x[:2], None)[0]

    def runs(self) -> Mapping[str, Callable[[], object]]:
        losses: dict[str, Callable[[nn.Module], Tensor]] = {
            "plain": lambda net: F.cross_entropy(net(self.x), self.y),
            "flatness by torch.func": self.by_function_transforms,
            "flatness by double backward": self.by_double_backward,
            "pgd-at by hand": lambda net: F.cross_entropy(net(self.attacked(net)), self.y),
        }
        by_hand = {name: self.step_by_hand(loss) for name, loss in losses.items()}
        several = by_hand["plain"]
        by_hand[f"{STEPS + 1} plain"] = lambda: [several() for _ in range(STEPS + 1)]
        return by_hand | {name: self.step_of(objective) for name, objective in OURS.items()}

    def step_by_hand(self, loss: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
        net = self.copied()
        optimizer = self.optimizer(net)

        def step() -> None:
            optimizer.zero_grad()
            loss(net).backward()
            optimizer.step()

        return step

    def step_of(self, objective: Objective) -> Callable[[], None]:
        net = self.copied()
        optimizer, live = self.optimizer(net), LiveNetwork(net, self.head_name)

        def loss() -> Loss:
            return objective.loss(live, self.x, self.y, Streams(0, range(len(self.x)), 0, 1))

        def step() -> None:
            take_gradients(objective, loss, lambda total: total.backward(), live)
            optimizer.step()

        return step

    def copied(self) -> nn.Module:
        return copy.deepcopy(self.net).requires_grad_(True).train()

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)

    def by_function_transforms(self, net: nn.Module) -> Tensor:
        return self.regularised(net, lambda loss, weight: torch.func.hessian(loss)(weight))

    def by_double_backward(self, net: nn.Module) -> Tensor:
        return self.regularised(net, lambda loss, weight: hessian(loss, weight, create_graph=True))

    def regularised(self, net: nn.Module, second: Callable[[Callable, Tensor], Tensor]) -> Tensor:
        live = LiveNetwork(net, self.head_name)
        seen, head = live(self.x), live.head

        def loss(weight: Tensor) -> Tensor:
            return F.cross_entropy(F.linear(seen.features, weight, head.bias), self.y)

        table = second(loss, head.weight)
        sharpness = torch.einsum("si,ti,sjtj->", head.weight, head.weight, table)
        return F.cross_entropy(seen.logits, self.y) + WEIGHT * sharpness

    def attacked(self, net: nn.Module) -> Tensor:
        x = (self.x + EPS * (2 * torch.rand_like(self.x) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            x = x.detach().requires_grad_()
            F.cross_entropy(net(x), self.y).backward()
            x = x.detach() + STEP_SIZE * x.grad.sign()
            x = torch.clamp(x, self.x - EPS, self.x + EPS).clamp(0, 1)
        net.zero_grad()
        return x


def table(title: str, bench: Bench, rounds: int) -> None:
    runs = bench.runs()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for lap in range(rounds + 1):
        for name, run in runs.items():
            spent = timed(run).seconds
            if lap:
                seconds[name].append(spent)

    def over(name: str, unit: str, scale: float = 1.0) -> str:
        ratios = [own / (scale * base) for own, base in zip(seconds[name], seconds[unit], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return f"{middle:.3f} ({low:.3f} to {high:.3f})"

    rows = []
    for name in sorted(runs, key=lambda one: one in OURS):
        passes = BY_HAND.get(name) or int(max(OURS[name].cost))
        several = (f"{STEPS + 1} plain", passes / (STEPS + 1)) if passes > 2 else ("plain", passes)
        milliseconds = f"{1000 * statistics.median(seconds[name]):.1f}"
        rows.append([name, str(passes), milliseconds, over(name, "plain"), over(name, *several)])
    headings = ["step", "forwards", "CPU ms", "over a plain step", "over as many plain steps"]
    print_table(f"{title}, batch {len(bench.x)}, CPU time, {rounds} rounds", headings, rows)


def main() -> None:
    options = arguments(__doc__, batch=128, rounds=7)
    digits = data.digits("train")
    bench = Bench(demo_network(), digits[: options.batch], digits.labels[: options.batch])
    table("Digits network", bench, 10 * options.rounds)
    x, y = load_images(options.batch)
    table("ResNet-20", Bench(load_network(), x, y), options.rounds)
    console().print(machine(), highlight=False)


if __name__ == "__main__":
    main()
