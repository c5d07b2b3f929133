"""How robustness and flatness move the valley: every training objective, attacked, its walk recorded.

    for plan in digits digits-cosine mnist mnist-seeds mnist-cosine cifar10 cifar10-robust; do
        uncanny train studies/training/plans/$plan.toml --out build/training/networks/$plan
    done
    python studies/training.py --shared ../shared --cache build/training --autoattack 3

Weights of the regulariser and radii of sharpness-aware minimisation were chosen on validation images by
`studies/training/plans/digits-sweep.toml`. Trainings that are not finished are left out and counted. Networks, walks and
attacks are kept in ``--cache``: after a kill the same commands go on. AutoAttack takes a minute or two for a robust network;
without ``--autoattack`` only its results that are there already are printed.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from training import tables
from training.figure import draw
from training.judging import LONG, Judged, judge
from training.networks import TRAINED_EPS, accuracy, finished, planned, test_images

from uncannyvalley import zoo

SHARED = {
    "cifar10_resnet20": "standard", "cifar10_resnet32": "standard", "cifar10_marabou_medium": "standard",
    "cifar10_resnet2b_adv": "robust", "cifar10_cnn_a_adv": "robust", "cifar10_conv_small_pgd": "robust",
    "cifar10_oval_base": "robust",
}  # fmt: skip
"""Shared networks beside the one that is trained here; the residual ones take the longest."""

COLLAPSED = 0.3
"""Clean accuracy below which a training has failed: such a network's walk says nothing of its objective."""


def judged(dataset: str, given: argparse.Namespace) -> Iterator[Judged]:
    """Every network of a data set, first seeds first."""
    images, eps = test_images(dataset, given.shared), TRAINED_EPS[dataset]
    x, y = images[:], images.labels
    if dataset == "cifar10":
        for name, kind in SHARED.items():
            net = zoo.load(f"{given.shared}/models/load_reference.py:load", {"name": name})
            title = name.removeprefix("cifar10_")
            yield judge(
                title, kind, dataset, 0, net, x, y, eps, given.cache / "walks" / name, autoattack=False
            )
    for one in sorted(
        (one for one in finished(given.cache) if one.dataset == dataset), key=lambda one: one.seed
    ):
        net = one.network()
        if (right := accuracy(net, images)) < COLLAPSED:
            print(
                f"{dataset} {one.name}, seed {one.seed}: collapsed in training (clean {right:.3f}), left out"
            )
            continue
        yield judge(
            one.name, one.kind, dataset, one.seed, net, x, y, eps, given.cache / "walks" / one.title,
            autoattack=one.seed < given.autoattack,
        )  # fmt: skip


def by_objective(found: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Objective → its seeds; standard ones first, in the order of the plans."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for kind in ("standard", "robust"):
        for one in found:
            if one.kind == kind:
                groups[one.name].append(one)
    return dict(groups)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path("build/training"))
    parser.add_argument("--out", type=Path, default=Path("runs/training"), help="for the figure")
    parser.add_argument("--data", nargs="*", choices=TRAINED_EPS, default=list(TRAINED_EPS))
    parser.add_argument(
        "--autoattack", type=int, default=0, metavar="SEEDS", help="run AutoAttack on the first so many seeds"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    here = list(finished(given.cache))
    print(f"{len(here)} of {planned()} trainings are finished")
    shown = {}
    for dataset in given.data:
        found = list(judged(dataset, given))
        if not found:
            continue
        groups = shown[dataset] = by_objective(found)
        print(f"\n=== {dataset}, {len(found[0].clean)} test images")
        tables.accuracies(groups, TRAINED_EPS[dataset])
        tables.places(groups, *LONG[dataset])
        tables.depths(groups)
    given.out.mkdir(parents=True, exist_ok=True)
    draw(shown, given.out / "valley.png")
    print(f"\nfigure: {given.out / 'valley.png'}")


if __name__ == "__main__":
    main()
