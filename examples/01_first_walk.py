"""Example 1. What happens to the loss surface under a network's feet while an image is attacked?

A small network on scikit-learn's handwritten digits, attacked by PGD in 50 small steps. Every step is recorded beside two
control walks of the same length in the same ball: `noise` steps at random, `assist` goes *down* the loss, where the
network grows sure of the right answer. Prints the phases (climb to a ridge, flip of the label, descent into the valley)
of all images, and of one image step by step; draws both; and makes the same walk from the shell, into a folder with a page.
About 25 s on one core.

    python examples/01_first_walk.py
"""

import numpy as np
from materials import COLOURS, parser_of, quick, run, save, uncanny
from matplotlib.figure import Figure

import uncannyvalley as uv

EPS, STEP_SIZE, STEPS = 0.4, 0.01, 50
COUNT = quick(256, 64)


def main() -> None:
    given = parser_of(__doc__).parse_args()
    net = uv.zoo.demo()  # any nn.Module in evaluation mode that ends in an nn.Linear would do
    images = uv.data.load("digits").first(COUNT)
    x, y = images[:], images.labels

    model = uv.split(net, x)  # features φ and linear head, proved on the images to be the same network
    attack = uv.attacks.pgd(eps=EPS, step_size=STEP_SIZE)
    walk = uv.record(model, x, y, attack, steps=STEPS)
    controls = [uv.record(model, x, y, one, steps=STEPS) for one in uv.attacks.controls_of(attack)]

    found = uv.phases(walk, controls)
    print(found.summary())
    print_one(walk, found.records())

    folder = given.out / "first_walk"
    # the same as a command: it writes shards, kept images, a table of phases and a page, and resumes if interrupted
    uncanny(
        "record", "--model", "demo", "--data", "digits", "--limit", str(COUNT), "--eps", str(EPS),
        "--step-size", str(STEP_SIZE), "--steps", str(STEPS), "--out", str(folder), "--overwrite",
    )  # fmt: skip
    recorded = uv.open_run(folder)
    far = np.abs(recorded.trajectory.column("loss")[:, 0] - walk.column("loss")[:, 0]).max()
    print(f"\nLargest difference of clean losses between both ways: {far:.1e} nats")
    save(drawn([walk, *controls], recorded.images()), given.out, "01_first_walk.png")
    print(f"Page: {folder / 'report.html'}")


def print_one(walk: uv.Trajectory, found: list[dict]) -> None:
    """The phases of the first image that goes through all of them, row by row."""
    one = next(
        row for row in found if None not in (row["flip_step"], row["valley_step"]) and row["flip_step"]
    )
    place = int(np.flatnonzero(walk.examples == one["example"])[0])
    at = {
        "clean": 0,
        "ridge": one["ridge_step"],
        "flip": one["flip_step"],
        "valley": one["valley_step"],
        "end": STEPS,
    }
    print(f"\nImage {one['example']}, a {one['label']}:\n{'':8} step  log κ  predicted  confidence")
    for name, step in at.items():
        kappa, predicted, sure = (
            walk.column(column)[place, int(step)]
            for column in ("log_relative_sharpness", "predicted", "confidence")
        )
        print(f"{name:8} {step:4.0f} {kappa:6.2f} {predicted:10.0f} {sure:11.4f}")


def drawn(walks: list[uv.Trajectory], kept: dict) -> Figure:
    """Medians and 10 to 90 % of log κ over the steps, above one image on its way."""
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[3, 1.3])
    axes = upper.subplots()
    for walk in walks:
        low, median, high = np.percentile(walk.column("log_relative_sharpness"), [10, 50, 90], axis=0)
        colour = COLOURS[walk.attack]
        axes.fill_between(range(walk.rows), low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(median, color=colour, label=walk.attack, linewidth=2)
    axes.set(xlabel="step (0 is the clean image)", ylabel="log κ (nats)")
    axes.set_title("Relative sharpness: median and 10 to 90 % of images", loc="left")
    axes.legend(frameon=False)
    steps = next(of_one for of_one in kept.values() if any("valley" in roles for roles, _ in of_one.values()))
    shown = {step: (roles, pixels) for step, (roles, pixels) in sorted(steps.items()) if roles}
    for place, (step, (roles, pixels)) in zip(lower.subplots(1, len(shown)), shown.items(), strict=True):
        place.imshow(pixels[0], cmap="gray", vmin=0, vmax=1)
        place.set_title(f"{', '.join(roles)}\nstep {step}", fontsize=9)
        place.axis("off")
    return figure


if __name__ == "__main__":
    run(main)
