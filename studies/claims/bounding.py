"""Claim 7: flatness and a low Lipschitz constant together bound the change of the loss; flatness alone does not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor, nn

import uncannyvalley as uv
from claims import pictures, valley
from claims.robust import STANDARD
from claims.verdicts import Criterion, Outcome, Part, point
from claims.walks import COLOURS, World
from uncannyvalley import attacks
from uncannyvalley.analysis.summary import Figure, interval
from uncannyvalley.run.bounding import LossBounds, bounds_along
from uncannyvalley.theory.loss_bound import head_diameter

BOUNDED = ("mnist_conv_small_nat", "cifar10_conv_small_pgd")
"""Small networks, for which the certified constant of the features is not absurd."""

PAIRED, ROBUST = "mnist_conv_small_nat", "cifar10_conv_small_pgd"
SLOWER = 0.25
NEAREST = 0.25
"""Nats within which two images count as equally sharp."""

ABOVE = Criterion("loss changes above the bound", "below", 1, ".0f")
SAYS = Criterion("largest loss change over its bound", "above", 0.1, ".3f", counts=False)
EQUAL = Criterion("largest difference of log κ within a pair", "below", 1e-3, ".0e")
APART = Criterion(
    "same κ, features four times as steep: loss change − that of the slow network, nats, median",
    "above",
    1.0,
    ".1f",
)
NETWORKS_APART = Criterion(
    "images of equal κ, PGD 8/255: loss change on ResNet-20 − on the robust network, nats, median",
    "above",
    1.0,
    ".1f",
)
TELLS = Criterion(
    "rank correlation of clean log κ and loss change, PGD 8/255", "above", 0.5, ".2f", counts=False
)


class Around(nn.Module):
    """x → net(centre + factor · (x − centre)): the same at the centre, and so the same κ there; φ is ``factor`` times as steep."""

    def __init__(self, net: nn.Module, centre: Tensor, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor
        self.register_buffer("centre", centre)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.centre + self.factor * (x - self.centre))


def bounds_of(world: World, network: str) -> LossBounds:
    """The bound with the certified constant along PGD and random walks in L2, up to a distance of 1."""
    model = world.network(network)
    sample = world.photographs(network, 16)[:]
    constants = (uv.lipschitz_bound(model), uv.sampled_lipschitz(model, sample))
    steps = world.few(80, 20)
    found = []
    for make in (attacks.pgd, attacks.noise):
        attack = make("l2", eps=1.0, step_size=4 / steps)
        walked = world.walk(network, attack, steps, world.few(64, 16))
        found.append(bounds_along(walked, head_diameter(model.head), constants))
    joined = [
        np.concatenate([getattr(one, name) for one in found])
        for name in ("distance", "change", "certified", "estimated")
    ]
    return LossBounds(*joined, constants)


def pairs(world: World, network: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(log κ, loss change under PGD) of each image on its two networks: (images, 2), the slow one first."""
    net = world.original(network)
    images = world.photographs(network, count)
    eps = 0.2
    sharpness, change = [], []
    for number in range(count):
        x, y = images[number : number + 1], images.labels[number : number + 1]
        walks = [
            uv.record(Around(net, x, factor).eval(), x, y, attacks.pgd(eps=eps, step_size=eps / 8), steps=20,
                      measures=["loss", "log_relative_sharpness"])
            for factor in (SLOWER, 1.0)
        ]  # fmt: skip
        sharpness.append([walk.column("log_relative_sharpness")[0, 0] for walk in walks])
        change.append([walk.column("loss")[0, -1] - walk.column("loss")[0, 0] for walk in walks])
    return np.array(sharpness), np.array(change)


def matched(ours: np.ndarray, theirs: np.ndarray, within: float = NEAREST) -> list[tuple[int, int]]:
    """Pairs of equal value, to ``within``: each of ours takes the nearest of theirs that is left, in order of place."""
    left, found = dict(enumerate(theirs)), []
    for place, value in enumerate(ours):
        if not left:
            break
        nearest = min(left, key=lambda one: abs(left[one] - value))
        if abs(left[nearest] - value) <= within:
            found.append((place, nearest))
            del left[nearest]
    return found


def clean_and_change(world: World, network: str) -> tuple[np.ndarray, np.ndarray]:
    """Clean log κ and the loss change of PGD at 8/255, of images that were right at first."""
    walk = world.walk(network, attacks.pgd(eps=valley.EPS, step_size=valley.STEP), valley.STEPS)
    right = walk.column("adversarial")[:, 0] == 0
    loss = walk.column("loss")[right]
    return walk.column("log_relative_sharpness")[right, 0], loss[:, -1] - loss[:, 0]


def rank_correlation(one: np.ndarray, other: np.ndarray, draws: int = 1000) -> Figure:
    """Spearman's, with a bootstrap interval over images."""
    from scipy.stats import spearmanr

    generator = np.random.default_rng(0)
    chosen = [generator.integers(len(one), size=len(one)) for _ in range(draws)]
    drawn = [spearmanr(one[rows], other[rows]).statistic for rows in chosen]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Figure(float(spearmanr(one, other).statistic), float(low), float(high))


def measure(world: World) -> Outcome:
    """The bound on two networks; pairs of equal κ, made and found."""
    parts: list[Part] = []
    lines = []
    bounded = {name: bounds_of(world, name) for name in world.few(BOUNDED, BOUNDED[:1])}
    for name, one in bounded.items():
        moved = one.distance > 0
        ratio = one.change[moved] / one.certified[moved]
        parts.append(ABOVE.judge(point((ratio > 1).sum()), of=name))
        parts.append(SAYS.judge(point(ratio.max()), of=name))
        lines.append(
            f"{name}: {moved.sum()} perturbations, certified L {one.constants[0].value:.3g}, sampled {one.constants[1].value:.3g}"
        )
    sharpness, change = pairs(world, PAIRED, world.few(48, 4))
    parts.append(
        EQUAL.judge(point(np.abs(np.diff(sharpness, axis=1)).max()), of="pairs that differ in L alone")
    )
    parts.append(APART.judge(interval(change[:, 1] - change[:, 0], np.median)))
    lines.append(
        f"pairs: median loss change {np.median(change[:, 0]):.2f} nats slow, {np.median(change[:, 1]):.2f} steep"
    )
    clouds = {}
    if not world.quick:
        clouds = {name: clean_and_change(world, name) for name in (ROBUST, STANDARD)}
        couples = matched(clouds[ROBUST][0], clouds[STANDARD][0])
        rises = np.array([clouds[STANDARD][1][theirs] - clouds[ROBUST][1][ours] for ours, theirs in couples])
        parts.append(NETWORKS_APART.judge(interval(rises, np.median)))
        parts += [TELLS.judge(rank_correlation(*cloud), of=name) for name, cloud in clouds.items()]
        lines.append(f"{len(couples)} pairs of images with equal clean log κ on {ROBUST} and {STANDARD}")

    def draw(path: Path) -> None:
        _draw(bounded, clouds, (sharpness, change), path)

    broken = sum(int(part.figure.value) for part in parts if part.text.endswith(ABOVE.text))
    total = sum(int((one.distance > 0).sum()) for one in bounded.values())
    short = f"{broken} of {total} loss changes above the bound; at equal κ, steep and slow networks differ by {np.median(change[:, 1] - change[:, 0]):.1f} nats"
    return Outcome(parts, short, lines, draw)


def _draw(
    bounded: Mapping[str, LossBounds],
    clouds: Mapping[str, tuple[np.ndarray, np.ndarray]],
    twins: tuple[np.ndarray, np.ndarray],
    path: Path,
) -> None:
    sharpness, change = twins
    figure, (left, right) = pictures.sheet(9.6, 3.5, 2)
    for colour, (name, one) in zip(COLOURS, bounded.items(), strict=False):
        distance = np.median(one.distance, axis=0)[1:]
        left.plot(distance, np.median(one.certified, axis=0)[1:], "--", color=colour, label=f"bound, {name}")
        left.plot(distance, one.change.max(axis=0)[1:], color=colour, label=f"largest loss change, {name}")
    left.set_yscale("log")
    left.set_xlabel("|δ|, L2 (median of a step)")
    left.set_ylabel("nats")
    left.legend(frameon=False, fontsize=7)
    left.set_title("Bound (median) and what happened")
    for marker, colour, (name, (clean, rise)) in zip("so", COLOURS[2:], clouds.items(), strict=False):
        right.plot(clean, rise, marker, color=colour, markersize=3.5, alpha=0.6, label=name)
    right.plot(
        sharpness[:, 0], change[:, 0], "v", color=COLOURS[5], markersize=3.5, label="slow twin (MNIST)"
    )
    right.plot(
        sharpness[:, 1], change[:, 1], "^", color=COLOURS[0], markersize=3.5, label="steep twin (MNIST)"
    )
    right.set_xlabel("clean log κ")
    right.set_yscale("symlog", linthresh=0.1)
    right.set_ylim(-0.05, 1000)
    right.set_ylabel("loss change under PGD, nats")
    right.legend(frameon=False, fontsize=7, ncols=2, loc="upper left")
    right.set_title("Clean κ and loss change, a point an image")
    pictures.save(figure, path)
