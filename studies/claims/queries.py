"""Open question: do black-box attacks end in the valley?"""

import re
from pathlib import Path

import numpy as np

import uncannyvalley as uv
from claims import pictures, valley
from claims.attackers import stretched
from claims.printed import text_of
from claims.verdicts import Criterion, Outcome, share, share_of
from claims.walks import MOST, World, changes, pattern
from uncannyvalley import adversaries
from uncannyvalley.analysis.curves import drawn_walk

RISES = Criterion("flipped images whose κ has doubled by the flip", "above", MOST, ".0%", counts=False)
VALLEY = Criterion("flipped images whose last image is flat and wrong", "above", MOST, ".0%")
IN_PRINT = Criterion("walks that go below their clean κ after the flip, at any query", "above", MOST, ".0%")

SETTINGS = {
    "square": {"eps": valley.EPS, "queries": 500},
    "nes": {"eps": valley.EPS, "queries": 800},
    "boundary": {"queries": 800},
}
IMAGES = 32
PRINTED = "studies/README.md"


def in_print(name: str) -> tuple[int, float, float]:
    """(images, flipped, valley) of an attack in the table of studies/every_attack.py."""
    row = re.search(
        rf"^{name} +\w+ +(\d+) .* ([\d.]+)% +(\d+)% +(\d+)% +-?[\d.]+ +-?[\d.]+ +\d+$", text_of(PRINTED), re.M
    )
    if row is None:
        raise uv.InputError(f"{PRINTED} has no line of the attack {name!r} that can be read")
    return int(row[1]), float(row[2]) / 100, float(row[4]) / 100


def measure(world: World) -> Outcome:
    """Two attacks that see scores and one that sees decisions; what they have accepted is the walk."""
    network, _ = valley.subject(world)
    seen = world.photographs(network, world.few(IMAGES, 6))
    parts, walks = [], {}
    lines = [f"{'':10}{'flipped':>9}{'doubled':>9}{'flat, wrong':>13}{'rise':>7}{'fall':>7}"]
    for name in world.few(tuple(SETTINGS), ("square",)):
        settings = SETTINGS[name] | ({"queries": 60, "eps": 0.5} if world.quick else {})
        adversary = adversaries.by_name(name)(**settings)
        walk = world.kept(
            f"{network}-{name}-{settings['queries']}-{len(seen)}",
            lambda adversary=adversary: uv.watch(world.network(network), seen[:], seen.labels, adversary),
        )
        walks[name] = accepted = drawn_walk(walk)
        one = pattern(accepted)
        parts.append(VALLEY.judge(share(one.valley[one.flipped]), of=name))
        images, flipped, below = in_print(name)
        total = round(flipped * images)
        large = share_of(min(total, round(below * images)), total)
        parts.append(IN_PRINT.judge(large, of=f"{name}, {images} images", source=PRINTED))
        parts.append(RISES.judge(share(one.doubles[one.flipped]), of=name))
        lines.append(
            f"{name:10}{one.flipped.mean():>9.0%}{one.doubles.mean():>9.0%}{one.valley.mean():>13.0%}"
            f"{np.median(one.rise):>7.1f}{np.median(one.fall):>7.1f}"
        )

    def draw(path: Path) -> None:
        figure, (left, right) = pictures.sheet(9.6, 3.3, 2)
        shown = {name: stretched(changes(walk)) for name, walk in walks.items()}
        pictures.walks(left, shown, {name: np.linspace(0, 1, one.shape[1]) for name, one in shown.items()})
        left.set_title("What is accepted: log κ − clean, nats")
        left.set_xlabel("share of the queries")
        left.legend(frameon=False, fontsize=9)
        chosen = [part for part in parts if part.counts]
        titles = [part.text.split(":")[0] for part in chosen]
        pictures.intervals(right, chosen, MOST, titles)
        right.set_title("Share in the valley, of flipped")
        pictures.save(figure, path)

    found = [f"{name} {part.figure.value:.0%}" for name, part in zip(walks, parts[::3], strict=True)]
    return Outcome(parts, "flat and wrong at the end, of flipped: " + ", ".join(found), lines, draw)
