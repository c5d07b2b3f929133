"""Each attack of the kept libraries on ResNet-20, watched: do the rows say what the library says?

    python studies/every_attack.py --shared ../shared --out runs/every_attack

For every attack: images, queries an image and how many of them belong to no image; the library's own count of fooled
images beside what its final images do here; the largest difference between log κ of the last recorded row and a
fresh measurement of the returned image, in units of max(1, |log κ|); and the walk: flips, ridges and valleys among the
images that were right at first, from the observed forwards.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import uncannyvalley as uv
from uncannyvalley import adversaries, data, zoo
from uncannyvalley.adversaries import Adversary, Outcome
from uncannyvalley.probe import Prober
from uncannyvalley.trajectory import last_rows

ALL = 10**9
PLAN: dict[str, tuple[int, dict[str, object]]] = {
    "apgd-ce": (ALL, {"eps": 8 / 255}),
    "apgd-dlr": (ALL, {"eps": 8 / 255}),
    "autoattack": (ALL, {"eps": 8 / 255}),
    "fmn": (ALL, {}),
    "ddn": (ALL, {}),
    "deepfool": (ALL, {}),
    "fab": (100, {"eps": 8 / 255}),
    "cw": (100, {"steps": 200, "binary_search_steps": 5}),
    "square": (100, {"eps": 8 / 255, "queries": 1000}),
    "nes": (50, {"eps": 8 / 255, "queries": 1000}),
    "boundary": (50, {"queries": 1000}),
    "hopskipjump": (50, {"queries": 1000}),
}


def keeping(adversary: Adversary, kept: list[Tensor]) -> Adversary:
    """The same attack, whose returned images are kept."""

    def run(*arguments: object) -> Outcome:
        outcome = adversary.run(*arguments)  # type: ignore[arg-type]
        kept.append(outcome.images.cpu())
        return outcome

    return adversary._replace(run=run)


def fresh_sharpness(model: uv.SplitModel, images: Tensor, y: Tensor) -> np.ndarray:
    """log κ of the images, in one batch of all."""
    measure = uv.measures.available()["log_relative_sharpness"]
    with torch.no_grad():
        return measure(Prober(model, images, y)(model.place(images))).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("runs/every_attack"))
    parser.add_argument("--only", nargs="*", default=list(PLAN), help="names of attacks")
    parser.add_argument("--images", type=int, default=ALL, help="at most this many for each attack")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    net = zoo.load(f"{given.shared}/models/load_reference.py:load", {"name": "cifar10_resnet20"})
    images = data.load(f"parquet:{given.shared}/data/cifar10/test.parquet")
    model = uv.split(net, images[:8])
    print(
        f"{'attack':12}{'norm':>5}{'images':>7}{'queries':>9}{'apart':>7}{'fooled':>7}{'seen':>6}"
        f"{'|Δ log κ|':>10}{'flipped':>9}{'ridge':>7}{'valley':>8}{'height':>8}{'depth':>8}{'s':>6}"
    )
    for name in given.only:
        limit, settings = PLAN[name]
        count = min(limit, given.images, len(images))
        x, y = images[:count], images.labels[:count]
        adversary = adversaries.by_name(name)(**settings)
        kept: list[Tensor] = []
        started = time.perf_counter()
        walk = uv.watch(model, x, y, keeping(adversary, kept), seed=0)
        seconds = time.perf_counter() - started
        counts = walk.about["queries"]
        sharpness = walk.column("log_relative_sharpness")
        ours = sharpness[np.arange(count), last_rows(sharpness)]
        fresh = fresh_sharpness(model, torch.cat(kept), y)
        off = (np.abs(ours - fresh) / np.maximum(1, np.abs(fresh))).max()
        total = sum(counts[fate] for fate in ("matched", "ambiguous", "unmatched", "not_finite"))
        walked = uv.phases(walk).own_summary
        print(
            f"{name:12}{adversary.norm:>5}{count:>7}{total / count:>9.0f}{1 - counts['matched'] / total:>7.1%}"
            f"{counts['fooled']:>7}{counts['fooled_seen']:>6}{off:>10.1e}{walked.flipped.value:>9.1%}"
            f"{walked.ridge.value:>7.0%}{walked.valley.value:>8.0%}{walked.ridge_height.value:>8.1f}"
            f"{walked.depth.value:>8.1f}{seconds:>6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
