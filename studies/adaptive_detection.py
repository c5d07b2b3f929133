"""Attackers who know the detector, on CIFAR-10: how often each succeeds at a promised 5 %, and how far it has to go.

    python studies/adaptive_detection.py --shared ../shared --cache build/adaptive

Density fitted on the first 2000 lossless training images, threshold on the first 358 lossless test images; attacked are
the 100 images that follow, those of them that are classified right and not flagged. Detectors and finished tables are
kept in ``--cache`` by their settings and the code that made them: after a kill the same command goes on with the table
at which it stood.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import uncannyvalley
from uncannyvalley import ImageDetector, data, zoo
from uncannyvalley.detect.adaptive import attack_detector, attackers
from uncannyvalley.detect.evaluation.rates import Rate
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import Recipe, asking, recipe_of
from uncannyvalley.storing.files import write_text

CALIBRATION = 358
"""The first half of the 717 lossless test images."""

TABLES = (
    ("cifar10_resnet20", 8.0, (1, 4)),
    ("cifar10_resnet2b_adv", 8.0, (1, 4)),
    ("cifar10_resnet20", 2.0, (4, 1)),
)
"""Network, radius in grey levels of 255, budgets: every attacker."""

RADII = (0.5, 1.0, 2.0, 4.0, 8.0)
BUDGETS = (1, 4, 16)
FOLLOWERS = ("selective", "evading")
"""White boxes that follow the whole score: they alone attack in smaller balls, and detectors that draw noise."""

FOLLOWED = 50
"""Images that they attack."""

NOISY = asking(
    "noisy",
    (
        Question("support", {"log_odds@noise,noise2,noise3": 1.0}, "low"),
        Question("drift", {"drift@noise,noise2,noise3": 1.0}, "high"),
        *(one for one in recipe_of(4).questions if one.limit is not None),
    ),
)
"""Budget 4 with draws of noise for moves: the one kind of detector that has a seed to hide."""

HIDDEN_AT = 2.0
"""Grey levels: in larger balls everything succeeds, whatever is hidden."""

DRAWS = ((True, 1), (False, 1), (False, 2), (False, 4))
"""Whether the attacker knows the seed, and over how many draws he averages."""

PARTS = ("tables", "distortion", "draws")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path("build/adaptive"))
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--queries", type=int, default=200, help="of the black box about each image")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if "tables" in given.parts:
        for name, grey_levels, budgets in TABLES:
            bench = Bench.of(name, given)
            for budget in budgets:
                table(bench, budget, grey_levels)
    bench = Bench.of("cifar10_resnet20", given)
    if "distortion" in given.parts:
        distortion(bench)
    if "draws" in given.parts:
        draws(bench)


@dataclass(frozen=True)
class Bench:
    """A network, the images that fit, calibrate and are attacked, and the folder of what is finished."""

    name: str
    net: torch.nn.Module
    train: Tensor
    calibration: Tensor
    x: Tensor
    y: Tensor
    steps: int
    queries: int
    cache: Path

    @classmethod
    def of(cls, name: str, given: argparse.Namespace) -> "Bench":
        net = zoo.load(f"{given.shared}/models/load_reference.py:load", {"name": name})
        test = data.load(f"parquet:{given.shared}/data/cifar10/test.parquet")
        train = data.load(f"parquet:{given.shared}/data/cifar10/train.parquet").first(given.train)[:]
        rows = slice(CALIBRATION, CALIBRATION + given.images)
        cache = given.cache / name
        cache.mkdir(parents=True, exist_ok=True)
        return cls(
            name, net, train, test[:CALIBRATION], test[rows], test.labels[rows], given.steps, given.queries, cache
        )  # fmt: skip

    def detector(self, budget: int, recipe: Recipe | None = None) -> ImageDetector:
        """The detector of that budget, or of the recipe; from its file where it is there."""
        wanted = recipe or recipe_of(budget)
        path = self.cache / f"{wanted.name.replace(' ', '-')}-{key((wanted, len(self.train)))}.detector"
        if not path.exists():
            detector = ImageDetector(self.net, budget=budget, recipe=recipe)
            detector.fit(self.train, self.calibration).save(path)
        return ImageDetector.load(path, self.net)

    def kept(self, about: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` found, from its file where that is there."""
        path = (
            self.cache / f"{about['part']}-{key(about | {'steps': self.steps, 'images': len(self.x)})}.json"
        )
        if not path.exists():
            write_text(path, json.dumps(make() | {"about": about}, indent=1, default=str))
        return json.loads(path.read_text())


def key(about: object) -> str:
    """Digest of the settings that decide a result, and of the code that makes it."""
    return hashlib.sha256(f"{about!r} {code()}".encode()).hexdigest()[:16]


@cache
def code() -> str:
    """SHA-256 of the sources of detectors and attacks."""
    package = Path(uncannyvalley.__file__).parent
    files = sorted(one for folder in ("detect", "attacks") for one in (package / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(one.read_bytes() for one in files)).hexdigest()


def table(bench: Bench, budget: int, grey_levels: float) -> None:
    """Every attacker against one detector, printed."""
    detector = bench.detector(budget)

    def make() -> dict[str, Any]:
        found = attack_detector(
            detector,
            bench.x,
            bench.y,
            eps=grey_levels / 255,
            steps=bench.steps,
            queries=bench.queries,
            clean=bench.calibration,
        )
        return {"printed": str(found)} | found.to_json()

    about = {"part": "table", "recipe": detector.recipe, "threshold": detector.threshold, "eps": grey_levels}
    about |= {"queries": bench.queries}
    print(f"\n{bench.name}, {grey_levels:g}/255, budget {budget} ({detector.forwards} forwards)")
    print(bench.kept(about, make)["printed"], flush=True)


def followed(
    bench: Bench, detector: ImageDetector, grey_levels: float, rows: list[int], **knowledge: Any
) -> dict[str, Any]:
    """Those that follow the score, against some of the images: how many they fool, and which get past the detector."""

    def make() -> dict[str, Any]:
        eps = grey_levels / 255
        everybody = attackers(detector, eps, bench.steps, clean=bench.calibration, **knowledge)
        found = attack_detector(
            detector, bench.x[rows], bench.y[rows], doubt=False,
            attackers={name: everybody[name] for name in FOLLOWERS},
        ).headline  # fmt: skip
        assert found.succeeded is not None
        past = [row for row, beaten in zip(rows, found.succeeded, strict=True) if beaten]
        return {"fooled": found.misclassified.count, "past": past}

    about = {"part": "followed", "recipe": detector.recipe, "threshold": detector.threshold, "rows": rows}
    return bench.kept(about | {"eps": grey_levels, "knowledge": knowledge}, make)


def attackable(bench: Bench, detector: ImageDetector) -> list[int]:
    """The first ``FOLLOWED`` images that are classified right and not flagged."""
    right = (detector.model.logits_of(bench.x).argmax(dim=1) == bench.y).numpy()
    return np.flatnonzero(right & (detector.predict(bench.x) > 0))[:FOLLOWED].tolist()


def distortion(bench: Bench) -> None:
    """Ball after ball: an image that is beaten in one is beaten in all larger ones, and is not attacked again."""
    print(f"\n{bench.name}: success of {' and '.join(FOLLOWERS)} together by radius\n{'radius':>8}", end="")
    print("".join(f"{f'budget {one}: fooled':>24}{'and past':>20}" for one in BUDGETS))
    detectors = [bench.detector(budget) for budget in BUDGETS]
    given = [attackable(bench, one) for one in detectors]
    left = [list(one) for one in given]
    for grey_levels in RADII:
        line = f"{f'{grey_levels:g}/255':>8}"
        for i, detector in enumerate(detectors):
            count, beaten, found = len(given[i]), len(given[i]) - len(left[i]), {"fooled": 0, "past": []}
            if left[i]:
                found = followed(bench, detector, grey_levels, left[i])
            fooled, past = (Rate.of(beaten + one, count) for one in (found["fooled"], len(found["past"])))
            left[i] = [row for row in left[i] if row not in found["past"]]
            line += f"{short(fooled):>24}{short(past):>20}"
        print(line, flush=True)


def draws(bench: Bench) -> None:
    """What it helps a detector that draws noise to hide its seed, and an attacker to average over draws of his own."""
    detector = bench.detector(4, NOISY)
    rows = attackable(bench, detector)
    print(
        f"\n{bench.name}, {HIDDEN_AT:g}/255, three draws of noise for the moves of budget 4, {len(rows)} images"
    )
    for knows_seed, count in DRAWS:
        found = followed(bench, detector, HIDDEN_AT, rows, draws=count, knows_seed=knows_seed)
        known = "the detector's own noise" if knows_seed else f"{count} other draw{'s' * (count > 1)}"
        print(f"  follows {known:26} past {short(Rate.of(len(found['past']), len(rows)))}", flush=True)


def short(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


if __name__ == "__main__":
    main()
