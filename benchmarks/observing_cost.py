"""What it costs to watch somebody else's attack: the attack on ``observe(net, …).model`` over the attack on the net.

    python benchmarks/observing_cost.py [--shared ../shared] [--batch 64] [--rounds 3] [--threads 1]

ResNet-20, CIFAR-10 images, PGD (Linf, eps 8/255, step 2/255, no random start) as a loop written by hand and as other
libraries run it; they never enter the project's environment (see recording_cost.py):

    python benchmarks/observing_cost.py --peers build/peers

Watched are all closed-form measures that need no gradient, the default. Each watched run is one observation: its
queries matched, measured and put in a table. The copy that ``observe`` makes of the network is timed by itself
("set-up"), since an attack of any length pays for it once. The attack alone runs on the network as it was loaded, whose
weights ask for gradients, and on one that is frozen, as the watched copy is: a library that calls ``loss.backward()``
computes weight gradients on the first and not on the second, so only the second column is the price of watching.
CPU time, ratios within one round of interleaved runs, medians over rounds after one that is thrown away. "step by step"
interleaves the hand-written loops step by step, which scatters least where other processes come and go.
"""

import copy
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from recording_cost import EPS, PEERS, STEP_SIZE, Walk, load_images, load_network, machine
from timing import arguments, console, print_table, timed
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley
from uncannyvalley.observing import Observation

STEPS = 20
LIBRARIES = ("foolbox", "torchattacks")


def pgd_steps(net: nn.Module, clean: Tensor, y: Tensor) -> Iterator[None]:
    """PGD as one writes it by hand, one query and one step at a time."""
    x = clean.clone()
    for _ in range(STEPS):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)
        x = x.detach() + STEP_SIZE * gradient.sign()
        x = torch.clamp(x, clean - EPS, clean + EPS).clamp(0, 1)
        yield


def by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Walk:
    return lambda: list(pgd_steps(net, x, y))


def frozen(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).requires_grad_(False)


class Watching:
    """One attack of a library, alone and watched."""

    def __init__(
        self, make: Callable[[nn.Module, Tensor, Tensor], Walk], net: nn.Module, x: Tensor, y: Tensor
    ) -> None:
        self.make, self.net, self.x, self.y = make, net, x, y
        self.alone = {"as loaded": make(copy.deepcopy(net), x, y), "frozen": make(frozen(net), x, y)}
        self.queries = 0

    def observation(self) -> Observation:
        return uncannyvalley.observe(self.net, self.x, self.y, eps=EPS)

    def seconds(self) -> dict[str, float]:
        """CPU time of each way to run it, one after the other."""
        spent = {name: timed(walk).seconds for name, walk in self.alone.items()}
        since = time.process_time()
        with self.observation() as walk:
            spent["set-up"] = time.process_time() - since
            attack = self.make(walk.model, self.x, self.y)
            since = time.process_time()
            attack()
        table = walk.trajectory.table
        spent["watched"] = time.process_time() - since
        if walk.fates != {"matched": len(table), "ambiguous": 0, "unmatched": 0, "not_finite": 0}:
            raise SystemExit(f"rows were left out: {walk.fates}")
        self.queries = len(table) // len(self.x)
        return spent

    def step_by_step(self) -> float:
        """Watched over frozen, for the loop by hand: a step of one after a step of the other."""
        spent = {"frozen": 0.0, "watched": 0.0}
        with self.observation() as walk:
            walks = {
                "frozen": pgd_steps(frozen(self.net), self.x, self.y),
                "watched": pgd_steps(walk.model, self.x, self.y),
            }
            for _ in range(STEPS):
                for name, steps in walks.items():
                    spent[name] += timed(lambda steps=steps: next(steps)).seconds
        spent["watched"] += timed(lambda: walk.trajectory).seconds
        return spent["watched"] / spent["frozen"]


def row(name: str, rounds: list[dict[str, float]], queries: int) -> list[str]:
    """One line of the table: medians of seconds, and of ratios within a round."""

    def over(mine: str, theirs: str) -> str:
        return f"{statistics.median(one[mine] / one[theirs] for one in rounds):.3f}"

    seconds = [
        f"{statistics.median(one[key] for one in rounds):.2f}"
        for key in ("as loaded", "frozen", "watched", "set-up")
    ]
    return [
        name,
        str(queries),
        *seconds,
        over("watched", "as loaded"),
        over("watched", "frozen"),
        over("frozen", "as loaded"),
    ]


def main() -> None:
    options = arguments(__doc__, batch=64, rounds=3)
    x, y = load_images(options.batch)
    net = load_network()
    makers = {"by hand": by_hand}
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            console().print(f"{name} left out: not installed (see --peers)", highlight=False)
        else:
            makers[name] = PEERS[name]
    attacks = {name: Watching(make, net, x, y) for name, make in makers.items()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in attacks}
    for lap in range(options.rounds + 1):
        for name, attack in attacks.items():
            spent = attack.seconds()
            if lap:
                rounds[name].append(spent)
    headings = ["PGD", "queries", *(f"{key}, s" for key in ("as loaded", "frozen", "watched", "set-up"))]
    headings += ["watched / as loaded", "watched / frozen", "frozen / as loaded"]
    print_table(
        f"{STEPS} PGD steps alone and watched, {len(x)} images, CPU time, {options.rounds} rounds",
        headings,
        [row(name, rounds[name], attack.queries) for name, attack in attacks.items()],
    )
    lockstep = [attacks["by hand"].step_by_step() for _ in range(options.rounds)]
    console().print(
        f"step by step: watched = {statistics.median(lockstep):.3f} × frozen ({min(lockstep):.3f} to {max(lockstep):.3f})",
        highlight=False,
    )
    console().print(machine(), highlight=False)


if __name__ == "__main__":
    main()
