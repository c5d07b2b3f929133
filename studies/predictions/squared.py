"""Prediction (ii): networks trained with the squared loss have no valley, and are as attackable.

Their loss is |z − e_y|², whose Hessian in the head's weights is 2 I ⊗ φφᵀ: its relative sharpness 2 |φ|² |W|_F² knows no
softmax and can fall only with the feature norm. Both readings are asked: the softmax-κ of their outputs, and κ of their
own loss. Held against networks of the same plan that differ in the loss alone, on the same images.
"""

from collections.abc import Sequence

import numpy as np

from predictions.drawing import Interval, over_images
from predictions.subjects import Subject

VALLEY = np.log(10)
"""A valley that counts: log κ below the clean one by a factor of ten while the label is wrong."""

AT_MOST = 0.05
"""Share of images with such a valley that squared-loss networks may have at most."""

CLOSE = 0.1
"""Difference of accuracy under attack that counts as equal."""


def _rows(networks: Sequence[Subject], read: str, radius: int) -> np.ndarray:
    """(images, 2): the sum over networks of what is read of images that were right at first, and how many."""
    sums = np.zeros((networks[0].images, 2))
    for one in networks:
        walk = one.walks[radius]
        right = walk.right_at_first
        own = 2 * walk.log_norm
        kappa = own if read == "own" else walk.log_kappa
        fall = kappa[:, :1] - kappa
        found = {
            "valley": ((fall > VALLEY) & walk.wrong).any(axis=1),
            "own": ((fall > VALLEY) & walk.wrong).any(axis=1),
            "depth": fall[:, -1],
            "fooled": walk.wrong.any(axis=1),
        }[read].astype(float)
        sums[:, 0] += np.where(right, found, 0)
        sums[:, 1] += right
    return sums


def _share(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def accuracy(networks: Sequence[Subject]) -> float:
    """Clean accuracy, the mean over networks."""
    return float(np.mean([one.walks[0].right_at_first.mean() for one in networks]))


def ask(group: str, plain: Sequence[Subject], squared: Sequence[Subject]) -> bool:
    """Print one line a loss and radius; whether the prediction holds on this data set."""
    print(
        f"\n(ii) {group}, {len(plain)} and {len(squared)} seeds: share of images that are fooled, that have a valley (κ tenfold lower, label "
        f"wrong) in softmax-κ and in κ of the squared loss; mean fall of log κ at the end\n{'':22}{'clean':>7}{'eps':>6}"
        f"{'fooled':>22}{'valley, softmax-κ':>22}{'valley, own κ':>22}{'fall of softmax-κ':>24}"
    )
    valleys, gaps = [], []
    for radius, walk in enumerate(plain[0].walks):
        for name, networks in (("cross-entropy", plain), ("squared loss", squared)):
            cells = [
                over_images(_rows(networks, read, radius), _share) for read in ("fooled", "valley", "own")
            ]
            depth = over_images(_rows(networks, "depth", radius), _share)
            own = cells[2].cell(".2f", 22) if name == "squared loss" else f"{'':>22}"
            print(
                f"{name:22}{accuracy(networks):>7.3f}{walk.eps:>6.2f}{cells[0].cell('.2f', 22)}{cells[1].cell('.2f', 22)}{own}"
                f"{depth.cell('+.2f', 24)}"
            )
            if name == "squared loss":
                valleys += [cells[1], cells[2]]
        both = np.concatenate([_rows(plain, "fooled", radius), _rows(squared, "fooled", radius)], axis=1)
        gaps.append(over_images(both, lambda sums: sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]))
    return verdict(group, valleys, gaps, [walk.eps for walk in plain[0].walks])


def verdict(
    group: str, valleys: Sequence[Interval], gaps: Sequence[Interval], radii: Sequence[float]
) -> bool:
    """No valley, and no radius at which the squared loss is fooled less by more than CLOSE."""
    none = max(one.value for one in valleys) <= AT_MOST
    tougher = [f"{eps:g}: {gap:+.2f}" for eps, gap in zip(radii, gaps, strict=True) if gap.low > CLOSE]
    print(
        f"(ii) {group}: no valley: {'HOLDS' if none else 'FAILS'} (largest share {max(one.value for one in valleys):.3f}; more than {AT_MOST:.0%} "
        f"would have refuted it). As attackable: {'FAILS' if tougher else 'HOLDS'} (fooled, cross-entropy − squared, eps: "
        + ("; ".join(tougher) or "no radius")
        + f" surely above {CLOSE:.0%})."
    )
    return none and not tougher
