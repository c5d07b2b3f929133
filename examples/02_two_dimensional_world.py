"""Example 2. Where do ridge and valley come from? In a world of two dimensions they can be seen.

Inputs have two numbers, so log κ can be drawn for all of them at once. A small network learns two moons; PGD, noise and
assist walk over its landscape of log κ. Draws the landscape, its map, the loss and log κ along the walks; prints the
phases of walks from 200 points, and how log κ depends on the distance to the decision boundary.

    python examples/02_two_dimensional_world.py
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from materials import COLOURS, parser_of, run, save
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.measures import measure

STEPS = 32
START = torch.tensor([[0.59, 0.57]])
"""Where the walks that are drawn begin: on the right leg of the upper moon, class 0."""

PALETTE = "cividis"
CLASS_MARKS = ("o", "^")


@measure("first_coordinate", unit="input units", order=0, default=False)
def first_coordinate(probe: uv.Probe) -> Tensor:
    """x_1, where the walk is: a measure may read anything of a probe."""
    return probe.x[:, 0]


@measure("second_coordinate", unit="input units", order=0, default=False)
def second_coordinate(probe: uv.Probe) -> Tensor:
    """x_2."""
    return probe.x[:, 1]


MEASURES = [
    "log_relative_sharpness", "log_gini", "feature_norm", "log_geometry", "log_loss", "margin",
    "first_coordinate", "second_coordinate",
]  # fmt: skip


def two_moons(count: int = 600) -> tuple[Tensor, Tensor]:
    """Points (n, 2) in the middle of the unit square, and the moon (n,) each is on."""
    points, moons = make_moons(count, noise=0.12, random_state=0)
    points = 0.15 + 0.7 * (points - points.min(0)) / np.ptp(points, axis=0)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(moons)


def trained(x: Tensor, y: Tensor) -> nn.Module:
    """Two hidden layers of 64 ReLUs and a linear head, 400 steps of AdamW on all points."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.eval()


def walks_from(model: uv.SplitModel, x: Tensor, y: Tensor) -> list[uv.Trajectory]:
    """PGD and both controls, from each point."""
    attack = uv.attacks.pgd(norm="l2", eps=0.6, step_size=0.015)
    walks = (attack, *uv.attacks.controls_of(attack))
    return [uv.record(model, x, y, one, steps=STEPS, measures=MEASURES) for one in walks]


class Plane:
    """log κ, log loss and margin of class 0 at each point of a grid over the unit square."""

    def __init__(self, model: uv.SplitModel, side: int = 241) -> None:
        self.ticks = torch.linspace(0, 1, side)
        points = torch.cartesian_prod(self.ticks, self.ticks)
        stay = uv.attacks.fgsm(eps=1e-6)  # row 0 of a walk is the point itself
        found = uv.record(
            model, points, torch.zeros(len(points), dtype=torch.long), stay, steps=1, measures=MEASURES,
            batch_size=8192,
        )  # fmt: skip
        self.log_sharpness, self.log_loss, self.margin = (
            found.column(name)[:, 0].reshape(side, side).T  # rows x_2, columns x_1, as contour() takes them
            for name in ("log_relative_sharpness", "log_loss", "margin")
        )

    def height_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """log κ of the grid point nearest to each (x, y)."""
        side = len(self.ticks) - 1
        return self.log_sharpness[np.rint(y * side).astype(int), np.rint(x * side).astype(int)]


def path_of(walk: uv.Trajectory, row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of each step of one walk."""
    return walk.column("first_coordinate")[row], walk.column("second_coordinate")[row]


def draw(plane: Plane, walks: Sequence[uv.Trajectory], x: Tensor, y: Tensor) -> Figure:
    """Landscape and map above, loss and the walk of log κ below."""
    style = {
        "font.size": 10, "axes.titlelocation": "left", "axes.titlesize": 11, "axes.titleweight": "bold",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(12, 10.2))
        landscape = figure.add_axes((-0.01, 0.505, 0.52, 0.485), projection="3d", computed_zorder=False)
        grid = figure.add_gridspec(
            2, 2, left=0.055, right=0.985, top=0.965, bottom=0.05, wspace=0.14, hspace=0.2
        )
        sharpness, loss, steps = (figure.add_subplot(grid[place]) for place in ((0, 1), (1, 0), (1, 1)))
        draw_landscape(landscape, plane, walks)
        draw_map(sharpness, plane, plane.log_sharpness, walks, "The same from above; black: the boundary")
        draw_points(sharpness, x, y)
        label_steps(sharpness, walks[0])
        draw_map(loss, plane, plane.log_loss, walks, "Log loss of the true class, which PGD climbs", "magma")
        draw_steps(steps, walks)
    return figure


def draw_landscape(axes: Axes, plane: Plane, walks: Sequence[uv.Trajectory]) -> None:
    """log κ as height, with the walks on it."""
    ticks = plane.ticks.numpy()
    axes.plot_surface(
        *np.meshgrid(ticks, ticks), plane.log_sharpness, cmap=PALETTE, rcount=120, ccount=120,
        linewidth=0, antialiased=True, zorder=1,
    )  # fmt: skip
    for walk in walks:
        across, up = path_of(walk)
        height = plane.height_at(across, up) + 0.4
        axes.plot(across, up, height, color="white", linewidth=4.6, zorder=4, solid_capstyle="round")
        axes.plot(
            across, up, height, color=COLOURS[walk.attack], linewidth=2.8, zorder=5, solid_capstyle="round"
        )
    axes.view_init(elev=48, azim=-112)
    axes.set_box_aspect((1, 1, 0.55), zoom=0.98)
    axes.set(xlabel="x₁", ylabel="x₂", zlabel="log κ (nats)")
    axes.text2D(0.085, 0.98, "log κ over the plane: a ridge between two valleys", transform=axes.transAxes,
                fontsize=11, fontweight="bold", va="top")  # fmt: skip


def draw_map(
    axes: Axes, plane: Plane, height: np.ndarray, walks: Sequence[uv.Trajectory], title: str,
    palette: str = PALETTE,
) -> None:  # fmt: skip
    """One quantity over the plane in colour, with the boundary and the walks."""
    square = (0.0, 1.0, 0.0, 1.0)
    image = axes.imshow(height, origin="lower", extent=square, cmap=palette, aspect="equal")
    axes.contour(height, levels=12, extent=square, colors="white", linewidths=0.4, alpha=0.5)
    axes.contour(plane.margin, levels=[0.0], extent=square, colors="black", linewidths=1.6)
    axes.figure.colorbar(image, ax=axes, shrink=0.85, label="nats")
    outline = [patheffects.withStroke(linewidth=4, foreground="white")]
    for walk in walks:
        axes.plot(*path_of(walk), color=COLOURS[walk.attack], linewidth=2.2, path_effects=outline)
    axes.plot(*START[0], "o", color="white", markeredgecolor="black", markersize=7, zorder=6)
    axes.set(xlabel="x₁", ylabel="x₂", title=title, xlim=(0, 1), ylim=(0, 1))


def draw_points(axes: Axes, x: Tensor, y: Tensor) -> None:
    """Some points of each moon."""
    for moon, mark in enumerate(CLASS_MARKS):
        chosen = x[y == moon][:120]
        axes.scatter(
            *chosen.T, s=13, marker=mark, facecolor="none", edgecolor="white", linewidth=0.7, alpha=0.75
        )


def label_steps(axes: Axes, walk: uv.Trajectory) -> None:
    """Numbers at every fifth step of the attack."""
    across, up = path_of(walk)
    for step in range(0, STEPS + 1, 5):
        axes.plot(
            across[step],
            up[step],
            "o",
            color=COLOURS["pgd"],
            markeredgecolor="white",
            markersize=5.5,
            zorder=6,
        )
        axes.annotate(
            str(step), (across[step], up[step]), textcoords="offset points", xytext=(7, 3), fontsize=9,
            color="black", path_effects=[patheffects.withStroke(linewidth=2.6, foreground="white")],
        )  # fmt: skip


def draw_steps(axes: Axes, walks: Sequence[uv.Trajectory]) -> None:
    """log κ of the three walks over their steps, with ridge, flip and valley of the attack."""
    for walk in walks:
        line = "-" if walk is walks[0] else "--"
        values = walk.column("log_relative_sharpness")[0]
        axes.plot(values, line, color=COLOURS[walk.attack], linewidth=2.2, label=walk.attack)
    found = uv.phases(walks[0]).records()[0]
    by_step: dict[int, list[str]] = {}
    for name in ("ridge", "flip", "valley"):
        by_step.setdefault(int(found[f"{name}_step"]), []).append(name)
    for line, (step, names) in enumerate(sorted(by_step.items())):
        axes.axvline(step, color="#222222", linewidth=0.9, linestyle=":")
        axes.annotate(
            " = ".join(names), (step, 1), xycoords=("data", "axes fraction"), textcoords="offset points",
            xytext=(4, -12 - 13 * line), fontsize=9,
        )  # fmt: skip
    clean = walks[0].column("log_relative_sharpness")[0, 0]
    axes.axhline(clean, color="#222222", linewidth=0.8, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="step", ylabel="log κ (nats)", title="The same walks, step by step")
    axes.legend(frameon=False, loc="lower left")


def print_boundary(walk: uv.Trajectory) -> None:
    """log κ and the logit gap, step by step: away from the boundary one falls as the other grows."""
    gap, sharpness = np.abs(walk.column("margin")), walk.column("log_relative_sharpness")
    norm = 2 * np.log(walk.column("feature_norm"))
    print("\nThe walk that is drawn:\nstep  log κ  |logit gap|  log κ + gap − 2 log|φ|")
    for step in range(0, STEPS + 1, 4):
        rest = sharpness[0, step] + gap[0, step] - norm[0, step]
        print(f"{step:4} {sharpness[0, step]:6.2f} {gap[0, step]:12.2f} {rest:23.2f}")


def main() -> None:
    """The phases of many walks, one walk in numbers, the picture."""
    given = parser_of(__doc__).parse_args()
    x, y = two_moons()
    net = trained(x, y)
    with torch.no_grad():
        print(f"points on the right side: {(net(x).argmax(dim=1) == y).double().mean():.3f}\n")
    model = uv.split(net, x)

    attack, *controls = walks_from(model, x[:200], y[:200])
    print(uv.phases(attack, controls).summary())

    drawn = walks_from(model, START, torch.zeros(1, dtype=torch.long))
    print_boundary(drawn[0])
    print(f"log|w_0 − w_1|² of the head: {model.head.squared_distances[0, 1].log().item():.2f}")
    save(draw(Plane(model), drawn, x, y), given.out, "02_two_dimensional_world.png")


if __name__ == "__main__":
    run(main)
