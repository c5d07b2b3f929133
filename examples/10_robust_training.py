"""Example 10. Does adversarial training move the valley, or remove it?

The same small network is trained twice on digits: on clean images, and on images that PGD moves by up to Linf 0.15 at each
step. Both are then attacked by the same long walk to Linf 0.5. Prints clean and attacked accuracy, how far an image has to
be moved until κ is largest and until the label flips, and how many images fall below their clean κ after the flip; draws
log κ over the distance. Needs the extra: pip install 'uncannyvalley[train]'. About 35 s on one core.

    python examples/10_robust_training.py
"""

import numpy as np
from materials import COLOURS, parser_of, quick, right_ones, run, save
from matplotlib.figure import Figure

import uncannyvalley as uv
from uncannyvalley.train.objectives import Objective, erm, pgd_at

TRAINED_EPS, EPS, STEPS = 0.15, 0.5, 50
COUNT, EPOCHS = quick(256, 96), {"erm": quick(20, 8), "pgd-at": quick(30, 12)}


def main() -> None:
    given = parser_of(__doc__).parse_args()
    images, test = uv.data.load("digits:train"), uv.data.load("digits")
    walks = {}
    for objective in (erm(), pgd_at(eps=TRAINED_EPS, steps=5)):
        net = trained(objective, images, EPOCHS[objective.name])
        x, y = right_ones(net, test, COUNT)
        attack = uv.attacks.pgd(eps=EPS, step_size=EPS / STEPS)
        walks[objective.name] = uv.record(net, x, y, attack, steps=STEPS)
        with_eps = uv.record(
            net, x, y, uv.attacks.pgd(eps=TRAINED_EPS, step_size=TRAINED_EPS / 8), steps=20, measures=[]
        )
        stands = 1 - with_eps.column("adversarial").max(axis=1).mean()
        print(
            f"{objective.name}: of {len(x)} images that are right, {stands:.1%} stay right under PGD to {TRAINED_EPS}"
        )

    print(
        f"\n{'medians':10}{'ridge at':>10}{'flip at':>9}{'height, nats':>14}{'depth, nats':>13}{'valley after flip':>19}"
    )
    for name, walk in walks.items():
        found, distance = uv.phases(walk), walk.column("distance_linf")
        ridge = distance[np.arange(len(found)), found.ridge_step.astype(int)]
        flipped = np.isfinite(found.flip_step)
        flip = distance[flipped, found.flip_step[flipped].astype(int)]
        valley = np.isfinite(found.valley_step).mean()
        print(f"{name:10}{np.median(ridge):10.3f}{np.median(flip):9.3f}{np.median(found.ridge_height):14.2f}"
              f"{np.median(found.depth):13.2f}{valley:19.1%}")  # fmt: skip
    save(drawn(walks), given.out, "10_robust_training.png")


def trained(objective: Objective, images: uv.data.Images, epochs: int) -> object:
    """A network that ``fit`` trains from the same untrained weights; that of the last epoch is kept."""
    net = uv.zoo.load("family:small-cnn", {"channels": "1", "width": "1"}, seed=0)
    recipe = uv.Recipe(epochs=epochs, batch_size=64, learning_rate=0.05, validation_share=0.0)
    return uv.fit(net, images, None, objective, recipe, accelerator="cpu").network


def drawn(walks: dict[str, uv.Trajectory]) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for (name, walk), colour in zip(walks.items(), ("pgd", "assist"), strict=True):
        at = np.linspace(0, EPS, walk.rows)
        low, median, high = np.percentile(walk.column("log_relative_sharpness"), [10, 50, 90], axis=0)
        axes.fill_between(at, low, high, color=COLOURS[colour], alpha=0.13, linewidth=0)
        axes.plot(at, median, color=COLOURS[colour], linewidth=2, label=name)
    axes.axvline(TRAINED_EPS, color="#888888", linestyle=":", label="radius of adversarial training")
    axes.set(xlabel="Linf distance that PGD has gone", ylabel="log κ (nats), median and 10 to 90 %")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
