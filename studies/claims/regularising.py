"""Open question: what does regularisation do to flatness, and does flatness then bring robustness?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import uncannyvalley as uv
from claims import pictures
from claims.trained import TRAINED_EPS, VARIANTS, network_of
from claims.verdicts import Criterion, Outcome, Part, Verdict
from claims.walks import COLOURS, World, pattern, titled
from uncannyvalley import attacks
from uncannyvalley.analysis.summary import Figure

SEEDS = (0, 1, 2)
IMAGES, STEPS, FAR = 250, 40, 0.5

FLATTER = Criterion("clean log κ − that of plain training, nats, mean of medians", "below", 0.0, "+.2f")
STURDIER = Criterion(
    "accuracy under PGD-20 at 0.15 − that of plain training", "above", 0.0, "+.3f", counts=False
)
FOLLOWS = Criterion(
    "regularisers after which both are sure and go together: flatter and more robust, or neither; of all",
    "above",
    0.5,
    ".0%",
)

DRAWS = 2000


@dataclass(frozen=True)
class Seen:
    """What one network came to, an entry an image; clean, height and depth of those that were right at first.

    clean  log κ    height  of the ridge, nats    depth  below the clean κ at the end    robust  right after PGD-20
    """

    clean: np.ndarray
    height: np.ndarray
    depth: np.ndarray
    robust: np.ndarray
    accuracy: float


def seen_of(world: World, name: str, seed: int) -> Seen:
    """One network on the test digits: a walk of PGD to a far radius, and one inside the trained radius."""
    count = world.few(IMAGES, 40)
    images = world.photographs("digits", count)
    steps = world.few(STEPS, 10)

    def walk(eps: float, rows: int) -> uv.Trajectory:
        attack = attacks.pgd(eps=eps, step_size=2.5 * eps / rows)
        title = f"trained-{name.replace(' ', '-')}-{seed}-{world.few(1, 0)}-{titled(attack)}-{rows}-{count}"
        return world.kept(
            title,
            lambda: uv.record(network_of(world, name, seed), images[:], images.labels, attack, steps=rows),
        )

    far, near = walk(FAR, steps), walk(TRAINED_EPS, world.few(20, 5))
    wrong = near.column("adversarial")
    right = far.column("adversarial")[:, 0] == 0
    return Seen(
        clean=far.column("log_relative_sharpness")[right, 0],
        height=uv.phases(far).ridge_height[right],
        depth=pattern(far).fall,
        robust=(wrong.max(axis=1) == 0).astype(float),
        accuracy=float(right.mean()),
    )


def difference(
    ours: list[np.ndarray], theirs: list[np.ndarray], of: str = "median", level: float = 0.95
) -> Figure:
    """Mean over seeds of a statistic of ours − the same of theirs; the bootstrap draws seeds, and in each its images."""
    statistic = np.median if of == "median" else np.mean
    draws = np.random.default_rng(0)

    def drawn(samples: list[np.ndarray]) -> float:
        chosen = draws.integers(len(samples), size=len(samples))
        return float(np.mean([statistic(draws.choice(samples[one], len(samples[one]))) for one in chosen]))

    values = [drawn(ours) - drawn(theirs) for _ in range(DRAWS)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    value = np.mean([statistic(one) for one in ours]) - np.mean([statistic(one) for one in theirs])
    return Figure(float(value), float(low), float(high))


def follows(flatter: list[Part], sturdier: list[Part]) -> Figure:
    """Share of the regularisers for which both are sure and have the same sense; exact, there are no others."""
    sure = [
        (flat.verdict, sturdy.verdict)
        for flat, sturdy in zip(flatter, sturdier, strict=True)
        if Verdict.OPEN not in (flat.verdict, sturdy.verdict)
    ]
    value = sum(flat == sturdy for flat, sturdy in sure) / len(flatter)
    return Figure(value, value, value)


def measure(world: World) -> Outcome:
    """Seven regularisers and plain training, three seeds each."""
    names = list(VARIANTS) if not world.quick else ["plain", "label smoothing"]
    seeds = SEEDS if not world.quick else SEEDS[:1]
    found = {name: [seen_of(world, name, seed) for seed in seeds] for name in names}
    plain = found["plain"]
    others = [name for name in names if name != "plain"]
    flatter = [
        FLATTER.judge(difference([one.clean for one in found[name]], [one.clean for one in plain]), of=name)
        for name in others
    ]
    sturdier = [
        STURDIER.judge(
            difference([one.robust for one in found[name]], [one.robust for one in plain], "mean"), of=name
        )
        for name in others
    ]
    parts = [*flatter, FOLLOWS.judge(follows(flatter, sturdier)), *sturdier]
    lines = [f"{'':17}{'accuracy':>9}{'PGD-20':>8}{'clean log κ':>13}{'height':>8}{'depth':>8}"]
    for name, nets in found.items():
        lines.append(
            f"{name:17}{np.mean([one.accuracy for one in nets]):>9.3f}{np.mean([one.robust.mean() for one in nets]):>8.3f}"
            + "".join(
                f"{np.mean([np.median(getattr(one, what)) for one in nets]):>{width}.2f}"
                for what, width in (("clean", 13), ("height", 8), ("depth", 8))
            )
        )

    def draw(path: Path) -> None:
        _draw(found, flatter, others, path)

    flat = [name for name, part in zip(others, flatter, strict=True) if part.verdict == Verdict.HOLDS]
    sturdy = [name for name, part in zip(others, sturdier, strict=True) if part.verdict == Verdict.HOLDS]
    short = f"surely flatter: {', '.join(flat) or 'none'}; surely more robust: {', '.join(sturdy) or 'none'} (of {len(others)})"
    return Outcome(parts, short, lines, draw)


def _draw(
    found: Mapping[str, Sequence[Seen]], flatter: Sequence[Part], others: Sequence[str], path: Path
) -> None:
    figure, (left, right) = pictures.sheet(9.6, 3.4, 2)
    for colour, (name, nets) in zip(COLOURS, found.items(), strict=False):
        points = [(np.median(one.clean), one.robust.mean()) for one in nets]
        left.plot(*zip(*points, strict=True), "o", color=colour, label=name, markersize=5)
    left.set_xlabel("clean log κ (median); flatter to the left")
    left.set_ylabel("accuracy, PGD-20 at 0.15")
    left.legend(frameon=False, fontsize=8, ncols=2)
    left.set_title("Clean κ and robustness, a point a network")
    pictures.intervals(right, flatter, 0.0, others)
    right.set_title("Clean log κ − plain, nats: flatter?")
    pictures.save(figure, path)
