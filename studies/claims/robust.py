"""Claim 4: adversarial training moves the valley further out and does not remove it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import uncannyvalley as uv
from claims import pictures, valley
from claims.printed import TRAINING, interval_in, text_of
from claims.verdicts import Criterion, Outcome, Part, share
from claims.walks import COLOURS, DOUBLED, MOST, World, pattern
from uncannyvalley import attacks
from uncannyvalley.analysis.summary import Figure, interval

STANDARD = "cifar10_resnet20"
ROBUST = ("cifar10_resnet2b_adv", "cifar10_cnn_a_adv", "cifar10_conv_small_pgd", "cifar10_oval_base")
NEAR, FAR = 8 / 255, 32 / 255
"""The radius that is usual for these networks, and one of four times as much."""

STEPS, STEP = 64, 1 / 255

MOVED = Criterion(
    "Linf distance where half are in the valley − that of ResNet-20, in 1/255", "above", 0.0, ".1f"
)
NOT_NEAR = Criterion(
    "flipped images at less than half the clean κ, label wrong, at 8/255", "above", MOST, ".0%", counts=False
)
STILL = Criterion(
    "flipped images at less than half the clean κ, label wrong, at 32/255", "above", MOST, ".0%"
)
DIGITS_MOVED = Criterion("PGD-AT's distance of the flip, digits, Linf", "above", 0.13)
DIGITS_STILL = Criterion("images below their clean κ after the flip, digits, PGD-AT", "above", MOST, ".0%")

WALKS = "walk of 50 steps to Linf 0.5"


def entry(trajectory: uv.Trajectory, eps_unit: float = 1 / 255) -> np.ndarray:
    """Distance where each flipped image first lies at less than half its clean κ; inf where it never does."""
    sharpness, wrong = (trajectory.column(name) for name in ("log_relative_sharpness", "adversarial"))
    distance = trajectory.column("distance_linf")
    right = wrong[:, 0] == 0
    flat = (wrong == 1) & (sharpness <= sharpness[:, :1] - DOUBLED)
    reached = flat & (np.cumsum(wrong == 1, axis=1) > 0)
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), -1)
    found = np.where(first >= 0, distance[np.arange(len(first)), first] / eps_unit, np.inf)
    return found[right]


def moved(ours: np.ndarray, theirs: np.ndarray) -> Figure:
    """Median of ours − median of theirs; infinite where half of ours never get there."""
    if np.isinf(np.median(ours)):
        low = interval(np.where(np.isinf(ours), 1e9, ours), np.median).low - interval(theirs, np.median).high
        return Figure(np.inf, low if low < 1e8 else np.inf, np.inf)
    one, other = interval(np.where(np.isinf(ours), 1e9, ours), np.median), interval(theirs, np.median)
    return Figure(one.value - other.value, one.low - other.high, min(one.high - other.low, np.inf))


def measure(world: World) -> Outcome:
    """PGD in small steps to four times the usual radius, on robust networks and a standard one."""
    parts, lines = (
        [],
        [f"{'':16}{'flipped':>9}{'valley 8':>10}{'valley 32':>10}{'fall 32':>9}{'at, 1/255':>11}"],
    )
    walks = {}
    networks = ("digits",) if world.quick else (STANDARD, *ROBUST)
    for network in networks:
        steps = world.few(STEPS, 8)
        walks[network] = world.walk(network, attacks.pgd(eps=FAR, step_size=STEP), steps)
        usual = attacks.pgd(eps=NEAR, step_size=valley.STEP)
        near = world.walk(network, usual, valley.STEPS)
        close, far = pattern(near), pattern(walks[network])
        title, reached = network.removeprefix("cifar10_"), entry(walks[network])
        lines.append(
            f"{title:16}{far.flipped.mean():>9.0%}{close.valley.mean():>10.0%}{far.valley.mean():>10.0%}"
            f"{np.median(far.fall):>9.1f}{_reached(reached):>11}"
        )
        if network in ROBUST:
            standard = entry(walks[STANDARD])
            parts.append(MOVED.judge(moved(reached, standard[np.isfinite(standard)]), of=title))
            parts.append(STILL.judge(share(far.valley[far.flipped]), of=title))
            parts.append(NOT_NEAR.judge(share(close.valley[close.flipped]), of=title))
    parts += printed_digits()

    def draw(path: Path) -> None:
        _draw(walks, parts, path)

    held = sum(part.verdict == "holds" for part in parts if part.counts and "32/255" in part.text)
    asked = sum(part.counts and "32/255" in part.text for part in parts)
    near_by = sum(part.verdict == "holds" for part in parts if not part.counts)
    digits = parts[-1].figure.value
    short = f"valley for most: at 8/255 on {near_by}, at 32/255 on {held} of {asked} robust networks; on digits {digits:.0%}"
    return Outcome(parts, short, lines, draw)


def printed_digits() -> list[Part]:
    """Equal networks, three seeds, trained with and without attacks: printed by studies/training.py."""
    text = text_of(TRAINING)
    plain = Figure(*interval_in(text, "=== digits", WALKS, "erm", 3))
    robust = Figure(*interval_in(text, "=== digits", WALKS, "pgd-at", 3))
    moved_by = Criterion(DIGITS_MOVED.text, "above", plain.high)
    below = Figure(*interval_in(text, "=== digits", WALKS, "pgd-at", 2))
    return [moved_by.judge(robust, source=TRAINING), DIGITS_STILL.judge(below, source=TRAINING)]


def _reached(distances: np.ndarray) -> str:
    middle = np.median(distances)
    return "∞" if np.isinf(middle) else f"{middle:.1f}"


def _over_distance(walk: uv.Trajectory) -> np.ndarray:
    sharpness = walk.column("log_relative_sharpness")
    right = walk.column("adversarial")[:, 0] == 0
    return np.median(sharpness[right] - sharpness[right, :1], axis=0)


def _draw(walks: Mapping[str, uv.Trajectory], parts: Sequence[Part], path: Path) -> None:
    figure, (left, right) = pictures.sheet(9.6, 3.4, 2)
    for colour, (network, walk) in zip(COLOURS, walks.items(), strict=False):
        falls = _over_distance(walk)
        style = "-" if network != STANDARD else "--"
        left.plot(falls, style, color=colour, label=network.removeprefix("cifar10_"))
    left.axhline(0, color=pictures.GREY, linewidth=0.8)
    left.set_ylim(-4, 3)
    left.set_xlabel("step of 1/255, at most 32/255 from the image")
    left.set_ylabel("log κ − clean, nats (median)")
    left.set_title("Out to 32/255; the axis cuts ResNet-20 off")
    left.legend(frameon=False, fontsize=8)
    still = [part for part in parts if part.text.endswith("wrong, at 32/255")]
    pictures.intervals(right, still, MOST, [part.text.split(":")[0] for part in still])
    right.set_title("flat and wrong at 32/255, of flipped")
    pictures.save(figure, path)
