"""Example 6. How is an attack of your own recorded, written for this package or for none?

Three attacks on the digits network, within Linf 0.4. `pgd` comes with the package. `sharpest` is written here as an
Attack, a named tuple of functions: it knows no label and only climbs log κ, to ask whether sharpness alone leads to the
boundary. `random search` is a plain loop that only ever calls a model, as code of any library does; it is watched, not
changed. Prints for each the share that flips, how high log κ climbs and where it ends; draws all three.
About 15 s on one core.

    python examples/06_your_own_attack.py
"""

from collections.abc import Callable

import numpy as np
import torch
from materials import COLOURS, parser_of, quick, right_ones, run, save
from matplotlib.figure import Figure
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.measures import available

EPS, STEP_SIZE, STEPS = 0.4, 0.01, 50
COUNT, QUERIES = quick(128, 48), quick(600, 200)


def sharpest(*, eps: float, step_size: float) -> uv.Attack:
    """x ← the ball's point nearest to x + step_size · sign(∂ log κ/∂x): up the sharpness, whatever the label."""

    def init(probe: uv.Probe, draws: object) -> None:
        return None  # what an attack remembers from step to step, such as a velocity; this one nothing

    def step(probe: uv.Probe, state: None, prober: Callable, draws: object) -> tuple[Tensor, None]:
        moved = probe.x + step_size * probe.objective_grad.sign()
        return moved.clamp(probe.clean - eps, probe.clean + eps).clamp(0, 1), state

    return uv.Attack(
        name="sharpest",
        settings={"norm": "linf", "eps": eps, "step_size": step_size, "random_start": False},
        objective=available()[
            "log_relative_sharpness"
        ],  # any measure can be climbed: it has an objective's type
        needs=frozenset(["objective_grad"]),
        init=init,
        step=step,
    )


def random_search(net: nn.Module, x: Tensor, y: Tensor, queries: int) -> Tensor:
    """Change a 2 × 2 patch to the ball's edge, keep it where the margin shrank: no gradient, and nothing of this package."""
    generator = torch.Generator().manual_seed(0)

    def margin(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = net(images)
        own = logits.gather(1, y[:, None]).squeeze(1)
        return own - logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)

    best, lowest = x.clone(), margin(x)
    for _ in range(queries - 1):
        tried = best.clone()
        for image, clean in zip(tried, x, strict=True):
            row, column = torch.randint(0, x.shape[-1] - 1, (2,), generator=generator).tolist()
            sign = 2 * torch.randint(0, 2, (1,), generator=generator).item() - 1
            patch = (..., slice(row, row + 2), slice(column, column + 2))
            image[patch] = (clean[patch] + sign * EPS).clamp(0, 1)
        found = margin(tried)
        better = found < lowest
        best[better], lowest[better] = tried[better], found[better]
    return best


def main() -> None:
    given = parser_of(__doc__).parse_args()
    net = uv.zoo.demo()
    x, y = right_ones(net, uv.data.load("digits"), COUNT)
    model = uv.split(net, x)
    ball = {"eps": EPS, "step_size": STEP_SIZE}
    walks = {
        "pgd": uv.record(model, x, y, uv.attacks.pgd(**ball), steps=STEPS),
        "sharpest": uv.record(model, x, y, sharpest(**ball), steps=STEPS),
    }
    with uv.observe(net, x, y, eps=EPS, name="random search") as watched:
        returned = random_search(watched.model, x, y, QUERIES)
    print(
        f"Of {watched.queries} queries, {watched.ambiguous + watched.unmatched} could not be told whose they were."
    )
    with torch.no_grad():
        print(
            f"Misclassified at the end, by the network itself: {(net(returned).argmax(dim=1) != y).float().mean():.1%}"
        )
    # tried and rejected points are no part of the path: of each query, the best so far
    walks["random search"] = watched.trajectory.accepted("margin")

    print(f"\n{'':15}{'flipped':>8}{'wrong at the end':>18}{'height, nats':>14}{'end − clean, nats':>19}")
    for name, walk in walks.items():
        found = uv.phases(walk)
        wrong = walk.column("adversarial")[np.arange(len(x)), found.steps.astype(int)].mean()
        print(f"{name:15}{np.isfinite(found.flip_step).mean():8.1%}{wrong:18.1%}{np.median(found.ridge_height):14.2f}"
              f"{-np.median(found.depth):+19.2f}")  # fmt: skip
    save(drawn(walks), given.out, "06_your_own_attack.png")


def drawn(walks: dict[str, uv.Trajectory]) -> Figure:
    """Median log κ over the share of each attack's own steps or queries."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for (name, walk), colour in zip(walks.items(), ("pgd", "assist", "other"), strict=True):
        median = np.nanmedian(
            walk.column("log_relative_sharpness"), axis=0
        )  # NaN: a query that could not be told
        axes.plot(np.linspace(0, 1, len(median)), median, color=COLOURS[colour], linewidth=2,
                  label=f"{name}, {len(median) - 1} {'queries' if walk.is_observed else 'steps'}")  # fmt: skip
    axes.set(xlabel="share of the attack", ylabel="log κ (nats), median")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
