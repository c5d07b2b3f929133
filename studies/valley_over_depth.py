"""Is the valley flat, per unit of uncertainty, at inner layers? κ_layer/Gini over depth, clean against the end of a walk.

    python studies/valley_over_depth.py --shared ../shared --out runs/valley_over_depth

PGD Linf with its controls `noise` and `assist` on standard and adversarially trained networks; κ and Tr H of every
layer, exact, at the clean image, half way and at the end. At the head κ is confidence times feature norm; dividing by
Gini = 1 − Σp² takes the confidence out of every layer alike. Prints the median change of log(κ_layer/Gini) from the
clean image to the last step with a 95 % bootstrap interval; the figure shows it over depth.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

import uncannyvalley as uv
from uncannyvalley import data, zoo
from uncannyvalley.derivatives.passes import called_layers
from uncannyvalley.report.drawings.figures import ATTACK_COLOUR, CONTROL_COLOURS, STYLE

NETWORKS = {
    "cifar10_resnet20": (8 / 255, "standard"),
    "cifar10_marabou_medium": (8 / 255, "standard"),
    "cifar10_resnet2b_adv": (8 / 255, "robust"),
    "cifar10_conv_small_pgd": (8 / 255, "robust"),
    "cifar10_cnn_a_adv": (32 / 255, "robust, larger ball"),
}
QUANTITY = "log_relative_sharpness_per_gini"


def changes(trajectory: uv.Trajectory, names: list[str], chosen: np.ndarray) -> np.ndarray:
    """Change from the clean image to the last step, (layers, examples)."""
    columns = [trajectory.column(name)[chosen] for name in names]
    return np.stack([column[:, -1] - column[:, 0] for column in columns])


def interval(values: np.ndarray, draws: int = 1000) -> tuple[float, float, float]:
    """Median and its 95 % percentile bootstrap, seeded."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), (2.5, 97.5))
    return float(np.median(values)), float(low), float(high)


def study(
    name: str, eps: float, net: nn.Module, x: np.ndarray, y: np.ndarray, steps: int
) -> dict[str, np.ndarray]:
    """Walk → change of every layer, for images that are right at first (attack: and wrong at the end)."""
    model = uv.split(net, x)
    attack = uv.attacks.pgd("linf", eps=eps, step_size=2.5 * eps / steps)
    layers = called_layers(model)
    names = [f"{QUANTITY}@{layer}" for layer in layers]
    print(
        f"\n{name}: {len(layers)} layers, PGD Linf {255 * eps:.3g}/255, {steps} steps of {2.5 * 255 * eps / steps:.3g}/255"
    )
    found, shown = {}, {}
    for walk in (attack, *uv.attacks.controls_of(attack)):
        recorded = uv.record(
            model,
            x,
            y,
            walk,
            steps=steps,
            every=steps // 2,
            measures=["log_gini", "log_relative_sharpness", *names],
        )
        wrong = recorded.column("adversarial") == 1
        chosen = ~wrong[:, 0] & (wrong[:, -1] if walk is attack else True)
        found[walk.name] = changes(recorded, names, chosen)
        shown[walk.name] = f"{walk.name} ({int(chosen.sum())} images)"
        for column in ("log_gini", "log_relative_sharpness"):
            middle, low, high = interval(changes(recorded, [column], chosen)[0])
            print(f"  {shown[walk.name]}: {column} {middle:+.2f} [{low:+.2f}, {high:+.2f}]")
    print(f"  change of log(κ_layer/Gini), nats{'':10}" + "".join(f"{one:>26}" for one in found))
    for place, layer in enumerate(layers):
        cells = (interval(values[place]) for values in found.values())
        print(f"  {layer:>40}  " + "".join(f"{m:+8.2f} [{lo:+6.2f}, {hi:+6.2f}]" for m, lo, hi in cells))
    return found


def draw(results: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(results), 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (title, walks) in zip(
            np.atleast_1d(figure.subplots(1, len(results))), results.items(), strict=True
        ):
            for name, values in walks.items():
                finite = np.where(np.isfinite(values), values, np.nan)
                low, middle, high = np.nanpercentile(finite, (25, 50, 75), axis=1)
                depth = np.linspace(0, 1, len(values))
                colour = CONTROL_COLOURS.get(name, ATTACK_COLOUR)
                axes.fill_between(depth, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(depth, middle, "-o", color=colour, markersize=3, label=name)
            axes.axhline(0, color="#888888", linewidth=0.8)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("depth, first layer to head")
        first = figure.axes[0]
        first.set_ylabel("change of log(κ_layer / Gini), nats")
        first.legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/"
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=Path("runs/valley_over_depth"))
    given = parser.parse_args()
    images = data.load(f"parquet:{given.shared}/data/cifar10/test.parquet").first(given.images)
    results = {}
    for name in given.networks:
        eps, kind = NETWORKS[name]
        title = f"{name.removeprefix('cifar10_')}\n{kind}, {255 * eps:.0f}/255"
        results[title] = study(
            name,
            eps,
            zoo.load(f"{given.shared}/models/load_reference.py:load", {"name": name}),
            images[:],
            images.labels,
            given.steps,
        )
    given.out.mkdir(parents=True, exist_ok=True)
    draw(results, given.out / "depth.png")
    print(f"\nfigure: {given.out / 'depth.png'}")


if __name__ == "__main__":
    main()
