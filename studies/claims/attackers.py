"""Claim 3: FGSM, PGD and other attacks show the pattern; noise does not, and what assist says about it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import uncannyvalley as uv
from claims import pictures
from claims.valley import EPS, STEPS, subject
from claims.verdicts import Criterion, Outcome, Part, Verdict, share
from claims.walks import DOUBLED, MOST, Pattern, World, changes, pattern
from uncannyvalley import adversaries, attacks
from uncannyvalley.analysis.curves import drawn_walk

RISES = Criterion("flipped images whose κ has doubled by the flip", "above", MOST, ".0%")
FALLS = Criterion("flipped images that end at less than half the clean κ, label wrong", "above", MOST, ".0%")
QUIET = Criterion("images that rise and then fall so", "below", MOST, ".0%")
FLAT_ANYWAY = Criterion(
    "images that end at less than half the clean κ, label right", "below", MOST, ".0%", counts=False
)

OURS: dict[str, tuple[Callable[..., uv.Attack], int]] = {
    "PGD": (attacks.pgd, STEPS),
    "momentum": (attacks.momentum, STEPS),
    "FGSM": (attacks.fgsm, 1),
    "noise": (attacks.noise, STEPS),
    "assist": (attacks.assist, STEPS),
}
LIBRARY = {"APGD": ("apgd-ce", {"eps": EPS, "steps": STEPS}), "DeepFool": ("deepfool", {})}
"""An attack that goes on after the flip, and one that stops as soon as it has it."""


def recorded(world: World) -> dict[str, uv.Trajectory]:
    """Every walk on one network, by the name of its attack."""
    network, eps = subject(world)
    found = {}
    for name, (make, steps) in OURS.items():
        attack = make(eps=eps) if name == "FGSM" else make(eps=eps, step_size=eps / 16)
        found[name] = world.walk(network, attack, steps)
    if world.quick:
        return found
    seen = world.photographs(network)
    for name, (known_as, settings) in LIBRARY.items():
        adversary = adversaries.by_name(known_as)(**settings)
        found[name] = world.kept(
            f"{network}-{known_as}-{len(seen)}",
            lambda adversary=adversary: uv.watch(world.network(network), seen[:], seen.labels, adversary),
        )
    return found


def judged(found: dict[str, Pattern]) -> list[Part]:
    """Two parts an attack, one for noise and one, beside the claim, for assist."""
    parts = []
    for name, one in found.items():
        if name == "noise":
            parts.append(QUIET.judge(share(one.whole), of=name))
        elif name == "assist":
            parts.append(FLAT_ANYWAY.judge(share(~one.wrong & (one.fall >= DOUBLED)), of=name))
        else:
            parts.append(RISES.judge(share(one.doubles[one.flipped]), of=name))
            parts.append(FALLS.judge(share(one.valley[one.flipped]), of=name))
    return parts


def measure(world: World) -> Outcome:
    """Five walks of our own and two of kept libraries, on one network."""
    walked = recorded(world)
    found = {name: pattern(drawn_walk(one)) for name, one in walked.items()}
    parts = judged(found)
    lines = [f"{'':10}{'flipped':>9}{'doubled':>9}{'flat, wrong':>13}{'rise':>7}{'fall':>7}"]
    for name, one in found.items():
        lines.append(
            f"{name:10}{one.flipped.mean():>9.0%}{one.doubles.mean():>9.0%}{one.valley.mean():>13.0%}"
            f"{np.median(one.rise):>7.1f}{np.median(one.fall):>7.1f}"
        )

    def draw(path: Path) -> None:
        figure, (left, right) = pictures.sheet(9.6, 4.0, 2)
        shown = {name: stretched(changes(drawn_walk(one))) for name, one in walked.items()}
        share_walked = {name: np.linspace(0, 1, values.shape[1]) for name, values in shown.items()}
        pictures.walks(left, shown, share_walked)
        left.set_title("log κ − clean, nats (median)")
        left.set_xlabel("share of the walk")
        left.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        pictures.intervals(right, parts, MOST, [_short(part) for part in parts])
        right.set_title("Share of images")
        pictures.save(figure, path)

    good = [name for name in found if name not in ("noise", "assist") and _both(parts, name)]
    others = [name for name in found if name not in (*good, "noise", "assist")]
    quiet = found["noise"].whole.mean()
    short = f"pattern for {', '.join(good) or 'none'}; not the whole of it for {', '.join(others) or 'none'}; noise {quiet:.0%}"
    return Outcome(parts, short, lines, draw)


def _both(parts: list[Part], name: str) -> bool:
    own = [part for part in parts if part.text.startswith(f"{name}:")]
    return all(part.verdict == Verdict.HOLDS for part in own)


def stretched(values: np.ndarray, points: int = 60) -> np.ndarray:
    """Each image's own walk, however long, at as many places."""
    rows = []
    for one in values:
        own = one[~np.isnan(one)]
        rows.append(own[np.linspace(0, len(own) - 1, points).round().astype(int)])
    return np.array(rows)


def _short(part: Part) -> str:
    name = part.text.split(":")[0]
    ending = "doubled" if "doubled" in part.text else "flat, wrong" if "wrong" in part.text else "flat"
    return f"{name}, {'both' if name == 'noise' else ending}"
