"""Claim 6: a threshold on sharpness finds adversarial examples of CIFAR-10 with more than 90 % accuracy.

Accuracy is balanced: the mean of the shares of clean and of attacked images that are told right, so that guessing is 50 %.
Two thresholds: the best one for that attack, learned from clean and attacked images of the first half; and one that 5 % of
the clean images of the first half lie below. Judged on the second half, on clean images that are classified right and
attacked ones that are then wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from claims import pictures, valley
from claims.verdicts import Criterion, Outcome, Part
from claims.walks import COLOURS, World
from uncannyvalley import attacks
from uncannyvalley.analysis.summary import Figure

SCORES = ("log_relative_sharpness", "log_gini", "log_entropy")
BAR = 0.9
FPR = 0.05
IMAGES = 400
DRAWS = 1000

LEARNED = Criterion("accuracy of log κ, best threshold", "above", BAR, ".3f")
CLEAN_ONLY = Criterion("accuracy of log κ, threshold from clean images alone", "above", BAR, ".3f")
MORE = Criterion("accuracy of log κ − of log Gini, best thresholds", "above", 0.0, "+.3f", counts=False)


@dataclass(frozen=True)
class Threshold:
    """Attacked where score · sign < level."""

    level: float
    sign: int

    def finds(self, score: np.ndarray) -> np.ndarray:
        return self.sign * score < self.level


def best_threshold(clean: np.ndarray, attacked: np.ndarray) -> Threshold:
    """The threshold, and the side of it, of the highest balanced accuracy on these images."""
    best, found = -1.0, Threshold(0.0, 1)
    for sign in (1, -1):
        ours, theirs = np.sort(sign * clean), np.sort(sign * attacked)
        values = np.unique(np.concatenate([ours, theirs]))
        levels = np.append((values[1:] + values[:-1]) / 2, values[-1] + 1)
        right = np.searchsorted(theirs, levels) / len(theirs) + 1 - np.searchsorted(ours, levels) / len(ours)
        if right.max() > best:
            best, found = right.max(), Threshold(float(levels[right.argmax()]), sign)
    return found


def clean_threshold(clean: np.ndarray, fpr: float = FPR) -> Threshold:
    """Flat points are attacked ones: ``fpr`` of these clean images lie below."""
    return Threshold(float(np.quantile(clean, fpr)), 1)


def accuracy(told: list[tuple[np.ndarray, np.ndarray]], signs: tuple[int, ...] = (1,)) -> Figure:
    """Balanced accuracy from (clean told clean, attacked told attacked); or the difference of two, images paired."""
    draws = np.random.default_rng(0)
    clean, attacked = (len(told[0][side]) for side in (0, 1))

    def at(rows: np.ndarray, others: np.ndarray) -> float:
        each = [(one[rows].mean() + two[others].mean()) / 2 for one, two in told]
        return float(sum(sign * one for sign, one in zip(signs, each, strict=True)))

    drawn = [
        at(draws.integers(clean, size=clean), draws.integers(attacked, size=attacked)) for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(at(np.arange(clean), np.arange(attacked)), float(low), float(high))


@dataclass(frozen=True)
class Attacked:
    """Scores of images of both halves: score name → values; those of clean images are beside them.

    clean, attacked  score → (images,), of the images that count       first  of the first half, likewise
    """

    clean: Mapping[str, np.ndarray]
    attacked: Mapping[str, np.ndarray]
    clean_first: np.ndarray
    attacked_first: np.ndarray

    def told(self, score: str, threshold: Threshold) -> tuple[np.ndarray, np.ndarray]:
        """On the second half: clean images that are told clean, and attacked ones that are told attacked."""
        clean = self.clean[score][~self.clean_first]
        attacked = self.attacked[score][~self.attacked_first]
        return ~threshold.finds(clean), threshold.finds(attacked)

    def learned(self, score: str) -> Threshold:
        return best_threshold(self.clean[score][self.clean_first], self.attacked[score][self.attacked_first])


def attacked_sets(world: World) -> dict[str, Attacked]:
    """Clean and attacked images of each attack; the same clean images everywhere."""
    network, usual = valley.subject(world)
    count = world.few(IMAGES, 120)
    found = {}
    for share, title in ((0.25, "2"), (0.5, "4"), (1.0, "8")):
        eps = share * usual
        walk = world.walk(network, attacks.pgd(eps=eps, step_size=eps / 16), valley.STEPS, count)
        wrong = walk.column("adversarial") == 1
        right = ~wrong[:, 0]
        flip = wrong.argmax(axis=1)
        rows = {f"PGD {title}/255, 40 steps": np.full(len(wrong), wrong.shape[1] - 1)}
        if title == "8":
            rows |= {"PGD 8/255, 10 steps": np.full(len(wrong), 10), "PGD 8/255, first flip": flip}
        found |= {name: _of_rows(walk, right, row) for name, row in rows.items()}
    one = world.walk(network, attacks.fgsm(eps=usual), 1, count)
    right = one.column("adversarial")[:, 0] == 0
    found["FGSM 8/255"] = _of_rows(one, right, np.ones(len(right), dtype=int))
    return found


def _of_rows(walk, right: np.ndarray, rows: np.ndarray) -> Attacked:
    everyone = np.arange(len(rows))
    fooled = right & (walk.column("adversarial")[everyone, rows] == 1)
    first = everyone < len(rows) // 2
    columns = {name: walk.column(name) for name in SCORES}
    return Attacked(
        {name: values[right, 0] for name, values in columns.items()},
        {name: values[everyone, rows][fooled] for name, values in columns.items()},
        first[right],
        first[fooled],
    )


def measure(world: World) -> Outcome:
    """Six attacks, three scores, two thresholds."""
    sets = attacked_sets(world)
    sets = {"PGD 8/255, 40 steps": sets["PGD 8/255, 40 steps"], **sets}
    parts: list[Part] = []
    lines = [
        f"{'':24}{'attacked':>9}" + "".join(f"{name:>24}" for name in ("log κ", "log Gini", "log entropy"))
    ]
    learned, beside = [], []
    for title, one in sets.items():
        told = {score: one.told(score, one.learned(score)) for score in SCORES}
        learned.append(LEARNED.judge(accuracy([told["log_relative_sharpness"]]), of=title))
        clean = one.told(
            "log_relative_sharpness", clean_threshold(one.clean["log_relative_sharpness"][one.clean_first])
        )
        parts.append(CLEAN_ONLY.judge(accuracy([clean]), of=title))
        pair = [told["log_relative_sharpness"], told["log_gini"]]
        beside.append(MORE.judge(accuracy(pair, (1, -1)), of=title))
        figures = [f"{accuracy([told[score]]):.3f}" for score in SCORES]
        lines.append(f"{title:24}{len(told['log_gini'][1]):>9}" + "".join(f"{cell:>24}" for cell in figures))
    parts = [*learned, *parts, *beside]

    def draw(path: Path) -> None:
        figure, (left, right) = pictures.sheet(9.6, 3.5, 2)
        clean = next(iter(sets.values())).clean["log_relative_sharpness"]
        _steps(left, clean, "clean", pictures.GREY)
        for colour, (title, one) in zip(COLOURS, sets.items(), strict=False):
            _steps(left, one.attacked["log_relative_sharpness"], title, colour)
        left.set_xlabel("log κ")
        left.set_ylabel("share of images below")
        left.legend(frameon=False, fontsize=7.5)
        left.set_title("Flat, sharp or like clean: by the attack")
        pictures.intervals(right, learned, BAR, list(sets))
        right.set_title("Accuracy, best threshold for each")
        pictures.save(figure, path)

    least = min(learned, key=lambda part: part.figure.value)
    gain = max(abs(part.figure.value) for part in beside)
    short = (
        f"PGD 8/255, 40 steps {learned[0].figure.value:.1%}; worst {least.text.split(':')[0]} {least.figure.value:.1%}; "
        f"κ and Gini differ by at most {gain:.3f}"
    )
    return Outcome(parts, short, lines, draw)


def _steps(axes, values: np.ndarray, title: str, colour: str) -> None:
    axes.step(np.sort(values), np.linspace(0, 1, len(values)), label=title, color=colour, linewidth=1.5)
