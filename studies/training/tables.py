"""What the study prints: accuracies, then where ridge and valley are and what the fall is made of."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from training.judging import Judged

DRAWS = 1000
LEVEL = 0.95
CELL = 24

Groups = Mapping[str, Sequence[Judged]]
"""Objective → its networks, one a seed."""

Reading = Callable[[Judged], np.ndarray | None]


def interval(
    networks: Sequence[Judged], read: Reading, statistic: Callable[..., float], seed: int = 0
) -> tuple[float, float, float]:
    """A statistic over images and seeds, and its percentile bootstrap: seeds are drawn, and in each its images, with replacement."""
    values = [found for one in networks if (found := read(one)) is not None and len(found)]
    if not values:
        return (np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWS):
        seeds = rng.integers(0, len(values), len(values))
        drawn.append(statistic(np.concatenate([rng.choice(values[one], len(values[one])) for one in seeds])))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, (tail, 100 - tail), method="nearest")
    return statistic(np.concatenate(values)), float(low), float(high)


def middle(values: np.ndarray) -> float:
    """The lower median: infinite where half or more of the values are."""
    return float(np.percentile(values, 50, method="higher"))


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def _cell(found: tuple[float, float, float], spec: str) -> str:
    if np.isnan(found[0]):
        return "–"
    value, low, high = ("∞" if np.isinf(one) else format(one, spec) for one in found)
    return f"{value} [{low}, {high}]"


def accuracies(groups: Groups, eps: float) -> None:
    """Clean, under PGD and under AutoAttack."""
    print(
        f"\naccuracy [95 %]; attacks Linf {eps:.3g}\n{'':22}{'seeds':>6}{'clean':>22}{'PGD-20':>22}{'AutoAttack':>22}{'its seeds':>10}"
    )
    for name, networks in groups.items():
        cells = [
            _cell(interval(networks, read, mean), ".3f")
            for read in (lambda one: one.clean, lambda one: one.pgd, lambda one: one.autoattack)
        ]
        asked = sum(one.autoattack is not None for one in networks)
        print(f"{name:22}{len(networks):>6}" + "".join(f"{cell:>22}" for cell in cells) + f"{asked:>10}")


def places(groups: Groups, radius: float, steps: int) -> None:
    """How far away ridge and valley are."""
    print(
        f"\nwalk of {steps} steps to Linf {radius:.3g}, images right at first: shares, and medians of the Linf distance (∞: not reached "
        f"by half of them)\n{'':22}{'flipped':>21}{'ridge (×10, ÷10)':>21}{'valley':>21}{'distance: flip':>{CELL}}{'ridge':>{CELL}}{'valley':>{CELL}}"
    )
    for name, networks in groups.items():
        flags = (
            lambda one: np.isfinite(one.walked.flip), lambda one: one.walked.has_ridge,
            lambda one: np.isfinite(one.walked.valley),
        )  # fmt: skip
        where = (lambda one: one.walked.flip, lambda one: one.walked.ridge, lambda one: one.walked.valley)
        shares = [_cell(interval(networks, read, mean), ".2f") for read in flags]
        far = [_cell(interval(networks, read, middle), ".3f") for read in where]
        print(
            f"{name:22}" + "".join(f"{one:>21}" for one in shares) + "".join(f"{one:>{CELL}}" for one in far)
        )


def depths(groups: Groups) -> None:
    """How high the ridge is, how deep the valley, and what the change is made of."""
    first = next(iter(groups.values()))[0]
    radii = "".join(f"{f'20 steps, {eps:.3g}':>{CELL}}" for eps in first.depths)
    print(
        f"\nnats: height of the ridge and depth at the end of that walk (medians), the change of log κ by its shares (means), and depth at "
        f"the end of shorter walks\n{'':22}{'height':>{CELL}}{'depth':>{CELL}}{'Gini':>8}{'norm':>7}{'geom.':>7}{radii}"
    )
    for name, networks in groups.items():
        cells = [
            _cell(interval(networks, read, middle), ".2f")
            for read in (lambda one: one.walked.height, lambda one: one.walked.depth)
        ]
        changes = (
            np.concatenate([one.walked.shares[share] for one in networks])
            for share in ("gini", "norm", "geometry")
        )
        parts = [mean(one[np.isfinite(one)]) for one in changes]  # features that vanish have no logarithm
        short = [
            _cell(interval(networks, lambda one, eps=eps: one.depths[eps], middle), ".2f")
            for eps in first.depths
        ]
        print(
            f"{name:22}"
            + "".join(f"{one:>{CELL}}" for one in cells)
            + f"{parts[0]:>+8.2f}{parts[1]:>+7.2f}{parts[2]:>+7.2f}"
            + "".join(f"{one:>{CELL}}" for one in short)
        )
