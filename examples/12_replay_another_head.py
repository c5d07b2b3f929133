"""Example 12. What would the valley have been, had the head been different?

One PGD walk on digits is recorded with its features. Then the same path is read again under other heads, without network
and images: the recorded head divided by a temperature, the nearest simplex frame (all classes equally far apart, as neural
collapse would have it), and a head fitted to the clean features with smoothed labels. Prints for each how high the ridge
is, how deep the valley, and how many images enter it. A replay asks about *this path*: so the last lines attack a network
whose head really is divided by 4 again, and say how far that is from the replay. About 7 s on one core.

    python examples/12_replay_another_head.py
"""

import copy

import numpy as np
import torch
from materials import COLOURS, parser_of, quick, right_ones, run, save
from matplotlib.figure import Figure
from torch import nn

import uncannyvalley as uv

STEPS, COUNT = 50, quick(256, 96)


def main() -> None:
    given = parser_of(__doc__).parse_args()
    net = uv.zoo.demo()
    x, y = right_ones(net, uv.data.load("digits"), COUNT)
    model = uv.split(net, x)
    attack = uv.attacks.pgd(eps=0.4, step_size=0.01)
    walk = uv.record(model, x, y, attack, steps=STEPS, keep="features")

    walks = {"as recorded": walk}
    for temperature in (0.5, 2, 4):
        walks[f"T = {temperature}"] = uv.replay(walk, temperature=temperature, recorded_head=model)
    for head in ("etf", "smoothed"):
        walks[head] = uv.replay(walk, head=head, recorded_head=model)
    print_table(walks)

    again = uv.record(with_divided_head(net, 4), x, y, attack, steps=STEPS)
    replayed = walks["T = 4"]
    print("\nThe head divided by 4, and the attack made again on that network:")
    print_table({"replayed": replayed, "attacked again": again})
    apart = np.abs(replayed.column("loss")[:, -1] - again.column("loss")[:, -1])
    print(
        f"Loss at the end, replayed against attacked again: apart by a median of {np.median(apart):.3f} nats, at most {apart.max():.2f}"
    )
    at_start = np.abs(
        replayed.column("log_relative_sharpness")[:, 0] - again.column("log_relative_sharpness")[:, 0]
    )
    print(f"log κ of the clean images, which no path changes: apart by at most {at_start.max():.1e} nats")
    save(drawn(walks), given.out, "12_replay_another_head.png")


def with_divided_head(net: nn.Module, temperature: float) -> nn.Module:
    """A copy of the network whose head is W/T, b/T."""
    changed = copy.deepcopy(net)
    with torch.no_grad():
        for one in changed[-1].parameters():
            one.div_(temperature)
    return changed


def print_table(walks: dict[str, uv.Trajectory]) -> None:
    print(
        f"{'head':15}{'clean log κ':>12}{'height':>8}{'depth':>8}{'valley after flip':>19}{'below clean at end':>20}"
    )
    for name, walk in walks.items():
        found, kappa = uv.phases(walk), walk.column("log_relative_sharpness")
        print(f"{name:15}{np.median(kappa[:, 0]):12.2f}{np.median(found.ridge_height):8.2f}{np.median(found.depth):8.2f}"
              f"{np.isfinite(found.valley_step).mean():19.1%}{(found.depth > 0).mean():20.1%}")  # fmt: skip


def drawn(walks: dict[str, uv.Trajectory]) -> Figure:
    """log κ since the clean image, so that heads of different scale can be compared."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    colours = ("pgd", "fgsm", "assist", "noise", "other", "clean")
    for (name, walk), colour in zip(walks.items(), colours, strict=True):
        kappa = walk.column("log_relative_sharpness")
        style = "--" if name in ("etf", "smoothed") else "-"
        axes.plot(
            np.median(kappa - kappa[:, :1], axis=0), style, color=COLOURS[colour], label=name, linewidth=2
        )
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set(xlabel="step of the one recorded walk", ylabel="log κ − clean log κ (nats), median")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
