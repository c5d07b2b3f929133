"""Example 7. How is a measure of your own recorded at every step, and is the ridge where a class boundary is near?

A measure is a function of a probe: one number for each image, from the forward that the attack makes anyway. The one
written here is the distance from the features to the nearest class boundary, over the length of the features: at a linear
head that distance is exact. It is recorded along PGD on digits beside log κ. Prints the median of both from step to step,
their rank correlation over all images and steps, and how far the step of the largest κ is from the step at which the
boundary is nearest. About 5 s on one core.

    python examples/07_your_own_measure.py
"""

import numpy as np
import torch
from jaxtyping import Float
from materials import COLOURS, parser_of, quick, right_ones, run, save
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

import uncannyvalley as uv
from uncannyvalley.measures import measure

STEPS, COUNT = 50, quick(256, 64)


@measure("log_boundary_distance", unit="log", order=0)
def log_boundary_distance(probe: uv.Probe) -> Float[Tensor, "n"]:
    """log of min_{s≠t} (z_t − z_s)/|w_t − w_s|, the distance to the nearest class boundary, over |φ|."""
    weight, logits = probe.head.weight.double(), probe.logits.double()
    top = probe.predicted
    gaps = logits.gather(1, top[:, None]) - logits  # (n, k), 0 at the top class itself
    apart = torch.cdist(weight, weight)[top]
    distances = torch.where(apart > 0, gaps / apart, torch.inf)
    return distances.amin(dim=1).log() - probe.log_feature_norm


def main() -> None:
    given = parser_of(__doc__).parse_args()
    net = uv.zoo.demo()
    x, y = right_ones(net, uv.data.load("digits"), COUNT)
    attack = uv.attacks.pgd(eps=0.4, step_size=0.01)
    names = ["log_relative_sharpness", "log_boundary_distance"]  # registered: it has a name like all others
    walk = uv.record(net, x, y, attack, steps=STEPS, measures=names)
    kappa, distance = (walk.column(name) for name in names)
    print(
        f"{walk.table.schema.field(names[1]).name} in {walk.unit(names[1])}, {kappa.shape[0]} images, {kappa.shape[1]} rows each"
    )

    print(f"\n{'step':>4}{'log κ':>9}{'log boundary distance':>23}")
    for step in (0, 5, 10, 15, 20, 30, 40, 50):
        print(f"{step:4}{np.median(kappa[:, step]):9.2f}{np.median(distance[:, step]):23.2f}")
    print(
        f"\nRank correlation over all images and steps: {spearmanr(kappa.ravel(), distance.ravel()).statistic:.3f}"
    )
    apart = np.abs(kappa.argmax(axis=1) - distance.argmin(axis=1))
    print(
        f"Steps between the largest κ and the nearest boundary: median {np.median(apart):.0f}, at most 3 in {(apart <= 3).mean():.1%}"
    )
    save(drawn(kappa, distance), given.out, "07_your_own_measure.png")


def drawn(kappa: np.ndarray, distance: np.ndarray) -> Figure:
    """Every image at every step, and the median path through them."""
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(
        distance.ravel(), kappa.ravel(), s=3, color=COLOURS["noise"], alpha=0.15, linewidth=0, rasterized=True
    )
    path = np.median(distance, axis=0), np.median(kappa, axis=0)
    axes.plot(*path, color=COLOURS["pgd"], linewidth=2)
    for step in (0, 10, STEPS):
        axes.annotate(
            f"step {step}",
            (path[0][step], path[1][step]),
            xytext=(-8, 6),
            textcoords="offset points",
            ha="right",
        )
    left = np.percentile(distance, 1)  # a few points lie on the boundary itself
    axes.set_xlim(left, distance.max() + 0.1)
    axes.set(xlabel="log (distance to the nearest boundary / |φ|)", ylabel="log κ (nats)")
    return figure


if __name__ == "__main__":
    run(main)
