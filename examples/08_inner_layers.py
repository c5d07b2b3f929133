"""Example 8. Is the valley flat in the inner layers too, once confidence is taken out?

At the head relative sharpness is confidence times feature norm, so its valley says that the network is sure. An inner
layer's sharpness could say more. Here κ of every layer of the digits network, exact, image by image, along PGD; beside it
log(κ/Gini), the same per unit of uncertainty. Prints both for each layer at the clean image, at the ridge and at the end,
and the third derivative of one layer; draws them over depth. About 7 s on one core.

    python examples/08_inner_layers.py
"""

import numpy as np
from materials import COLOURS, parser_of, quick, right_ones, run, save
from matplotlib.figure import Figure

import uncannyvalley as uv
from uncannyvalley.derivatives.passes import called_layers

STEPS, EVERY, COUNT = 50, quick(5, 10), quick(96, 32)


def main() -> None:
    given = parser_of(__doc__).parse_args()
    net = uv.zoo.demo()
    x, y = right_ones(net, uv.data.load("digits"), COUNT)
    attack = uv.attacks.pgd(eps=0.4, step_size=0.01)
    layers = called_layers(
        uv.split(net, x, prepare=False)
    )  # names of net.named_modules(), from the input to the head
    walk = uv.record(
        net, x, y, attack, steps=STEPS, every=EVERY,
        measures=["log_relative_sharpness", "log_relative_sharpness@all", "log_relative_sharpness_per_gini@all"],
    )  # fmt: skip
    ridge = np.nanargmax(walk.column("log_relative_sharpness"), axis=1)  # of each image, at the head
    rows = {"clean": np.zeros_like(ridge), "ridge": ridge, "end": np.full_like(ridge, STEPS)}
    found = {
        kind: np.array([[at(walk, f"{kind}@{layer}", row) for row in rows.values()] for layer in layers])
        for kind in ("log_relative_sharpness", "log_relative_sharpness_per_gini")
    }  # (layers, clean ridge end)

    print(f"Medians of {COUNT} images{'log κ':>22}{'log κ/Gini':>33}")
    print(f"{'layer':10}" + 2 * "".join(f"{name:>9}" for name in (*rows, "change")))
    for place, layer in enumerate(layers):
        cells = [(*values[place], values[place][2] - values[place][0]) for values in found.values()]
        print(f"{layer:10}" + "".join(f"{value:9.2f}" for of_kind in cells for value in of_kind))

    third = uv.curvature(net, x[:16], y[:16], layer=layers[-2], quantity="third_order")
    print(
        f"\nThird order of layer {layers[-2]} at 16 clean images: median log τ {third.log_value.median():.2f}, by {third.how}"
    )
    save(drawn(found, layers, list(rows)), given.out, "08_inner_layers.png")


def at(walk: uv.Trajectory, measure: str, rows: np.ndarray) -> float:
    """The median of a measure, each image at a row of its own."""
    return float(np.median(walk.column(measure)[np.arange(len(rows)), rows]))


def drawn(found: dict[str, np.ndarray], layers: tuple[str, ...], kinds: list[str]) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    titles = ("log κ", "log(κ/Gini): per unit of uncertainty")
    for axes, values, title in zip(figure.subplots(1, 2), found.values(), titles, strict=True):
        for column, kind in enumerate(kinds):
            colour = COLOURS[("clean", "pgd", "assist")[column]]
            axes.plot(values[:, column], "-o", color=colour, label=kind, linewidth=2, markersize=4)
        axes.set_xticks(range(len(layers)), layers)
        axes.set(title=title, xlabel="layer, from the input to the head")
    figure.axes[0].set_ylabel("nats, median")
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
