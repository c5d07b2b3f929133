"""Where do ridge and valley appear? Eight walks and four corruptions on standard, robust, quarter-width and transformer networks.

    python studies/train_families.py --shared ../shared --out build/families
    python studies/breadth.py --shared ../shared --families build/families --out runs/breadth

Prints, for each network, one row an attack: images flipped; walks with a ridge (κ rises tenfold and then falls tenfold);
walks that go below their clean sharpness after the flip; walks that end below it; medians of height and depth; and the mean
change of log κ from the clean image to the last row with its shares. All among images that were right at first.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from corruptions import CORRUPTIONS, corruption
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import uncannyvalley as uv
from uncannyvalley import adversaries, attacks, data, zoo
from uncannyvalley.analysis.curves import drawn_walk
from uncannyvalley.report.drawings.figures import STYLE

STEPS = 40


@dataclass(frozen=True)
class Case:
    """One network with its images and ball."""

    title: str
    kind: str
    model: str
    arguments: dict[str, str]
    weights: str | None
    data: str
    eps: float


def cases(shared: Path, families: Path) -> Iterator[Case]:
    """The shared networks, the trained families and the vision transformer."""
    reference = f"{shared}/models/load_reference.py:load"
    cifar, mnist = (f"parquet:{shared}/data/{name}/test.parquet" for name in ("cifar10", "mnist"))
    kinds = {
        "cifar10_resnet20": "standard", "cifar10_marabou_medium": "standard", "cifar10_resnet2b_adv": "robust",
        "cifar10_cnn_a_adv": "robust", "cifar10_conv_small_pgd": "robust", "cifar10_oval_base": "robust",
    }  # fmt: skip
    for name, kind in kinds.items():
        yield Case(name.removeprefix("cifar10_"), kind, reference, {"name": name}, None, cifar, 8 / 255)
    yield Case("cnn_a_adv, 32/255", "robust", reference, {"name": "cifar10_cnn_a_adv"}, None, cifar, 32 / 255)
    name = "mnist_conv_small_nat"
    yield Case(
        name.removeprefix("mnist_") + " (MNIST)", "standard", reference, {"name": name}, None, mnist, 0.2
    )
    yield Case("ViT (MNIST)", "transformer", f"hf:{families}/vit-mnist", {}, None, mnist, 0.2)
    for name in ("vgg11-bn", "resnet18", "wideresnet28-4", "densenet121"):
        weights = families / f"{name}-w0.25.safetensors"
        yield Case(
            f"{name}, width ¼", "family", f"family:{name}", {"width": "0.25"}, str(weights), cifar, 8 / 255
        )


def walks(
    case: Case, model: uv.SplitModel, x: Tensor, y: Tensor, given: argparse.Namespace
) -> Iterator[uv.Trajectory]:
    """Every walk of one network: gradient walks, attacks of libraries, then what nobody pushes."""
    step = 2.5 * case.eps / STEPS
    yield uv.record(model, x, y, attacks.fgsm(eps=case.eps), steps=1)
    yield uv.record(model, x, y, attacks.pgd(eps=case.eps, step_size=step), steps=STEPS)
    for name, settings in {
        "cw": {"steps": given.cw_steps, "binary_search_steps": 3},
        "apgd-ce": {"eps": case.eps, "steps": STEPS},
        "fab": {"eps": case.eps, "steps": given.fab_steps},
        "square": {"eps": case.eps, "queries": given.queries},
    }.items():
        yield uv.watch(model, x, y, adversaries.by_name(name)(**settings))
    for control in (attacks.noise, attacks.assist):
        yield uv.record(model, x, y, control(eps=case.eps, step_size=step), steps=STEPS)
    for name in CORRUPTIONS:
        yield uv.record(model, x, y, corruption(name), steps=5)


HEADER = (
    f"{'':16}{'flipped':>8}{'ridge':>7}{'valley':>8}{'below':>7}{'height':>8}{'depth':>8}"
    f"{'change':>9}{'Gini':>8}{'norm':>7}{'geom.':>7}"
)


def row(trajectory: uv.Trajectory) -> str:
    """Phases of one walk on a line."""
    walk = uv.phases(trajectory).own_summary
    change = walk.shares["change"]
    return (
        f"{trajectory.attack:16}{walk.flipped.value:>8.0%}{walk.ridge.value:>7.0%}{walk.valley.value:>8.0%}"
        f"{walk.below.value:>7.0%}{walk.ridge_height.value:>8.2f}{walk.depth.value:>8.2f}{change['change']:>+9.2f}"
        f"{change['change_gini']:>+8.2f}{change['change_norm']:>+7.2f}{change['change_geometry']:>+7.2f}"
    )


def median_path(trajectory: uv.Trajectory, points: int = 60) -> np.ndarray:
    """Median of log κ − clean log κ over the share of each example's own walk; of queries, what was accepted."""
    seen = drawn_walk(trajectory)
    correct = seen.column("adversarial")[:, 0] == 0
    paths = []
    for values in seen.column("log_relative_sharpness")[correct]:
        own = values[~np.isnan(values)]
        places = np.linspace(0, len(own) - 1, points).round().astype(int)
        paths.append(own[places] - own[0])
    return np.median(paths, axis=0)


COLOURS = {
    "pgd": "#D55E00", "fgsm": "#E69F00", "apgd-ce": "#CC79A7", "cw": "#009E73", "fab": "#56B4E9", "square": "#F0E442",
    "noise": "#7A7A7A", "assist": "#0072B2",
}  # fmt: skip


def draw(paths: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    with matplotlib.rc_context(STYLE):
        columns = 4
        lines = -(-len(paths) // columns)
        figure = Figure(figsize=(3.1 * columns, 2.7 * lines), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(lines, columns, sharex=True, squeeze=False).flatten()
        for axes, (title, walks_of) in zip(panels, paths.items(), strict=False):
            for name, colour in COLOURS.items():
                style = "--" if name in ("noise", "assist") else "-"
                axes.plot(
                    np.linspace(0, 1, len(walks_of[name])),
                    walks_of[name],
                    style,
                    color=colour,
                    label=name,
                    linewidth=1.6,
                )
            axes.axhline(0, color="#888888", linewidth=0.8)
            axes.set_title(title, fontsize=9)
        for axes in panels[len(paths) :]:
            axes.set_visible(False)
        figure.supxlabel("share of the walk (queries: best so far)", fontsize=9)
        figure.supylabel("median change of log κ since the clean image, nats", fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper center", ncols=8)
        figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--families", type=Path, default=Path("build/families"))
    parser.add_argument("--out", type=Path, default=Path("runs/breadth"))
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--cw-steps", type=int, default=60)
    parser.add_argument("--fab-steps", type=int, default=20)
    parser.add_argument("--queries", type=int, default=300, help="of Square")
    parser.add_argument(
        "--only", nargs="*", help="titles of networks; the figure shows all that have been walked"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chosen = list(cases(given.shared, given.families))
    for case in chosen:
        if given.only and case.title not in given.only:
            continue
        started = time.perf_counter()
        images = data.load(case.data).first(given.images)
        x, y = images[:], images.labels
        model = uv.split(zoo.load(case.model, case.arguments, weights=case.weights), x)
        right = (model.logits_of(x).argmax(dim=1) == y).double().mean()
        print(
            f"\n{case.title} ({case.kind}): {right:.0%} of {len(x)} images right, Linf {255 * case.eps:.3g}/255"
        )
        print(HEADER)
        paths = {}
        for trajectory in walks(case, model, x, y, given):
            print(row(trajectory), flush=True)
            paths[trajectory.attack] = median_path(trajectory)
        np.savez(path_file(given.out, case), **paths)
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    walked = [case for case in chosen if path_file(given.out, case).exists()]
    draw(
        {case.title: dict(np.load(path_file(given.out, case))) for case in walked}, given.out / "breadth.png"
    )


def path_file(out: Path, case: Case) -> Path:
    """Where the median paths of a network are kept for the figure."""
    return out / f"{case.title.replace('/', '_')}.npz"


if __name__ == "__main__":
    main()
