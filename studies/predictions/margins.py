"""Prediction (iv): adversarial training moves the valley by its smaller margin growth per eps alone.

If so, the fall of log κ of robust and standard networks is the same wherever the label is wrong and the logit gap is
the same. Three ways to ask, fixed before the walks: the fall from the clean image at the same gap (the prediction as it
stands), the same at the same *growth* of the gap, and the fall from the ridge of the walk at the same gap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from predictions.drawing import Interval, over_images
from predictions.subjects import Subject, Walk

EDGES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20])
"""Bins of the logit gap, nats."""

GROWTH_EDGES = np.concatenate([-EDGES[:0:-1], EDGES])
"""Bins of its growth since the clean image."""

SMALL = 0.1
"""A matched difference of this share of the unmatched one, or less, counts as vanished even where its interval leaves out 0."""


def fall_from_clean(walk: Walk) -> np.ndarray:
    return walk.log_kappa[:, :1] - walk.log_kappa


def fall_from_ridge(walk: Walk) -> np.ndarray:
    return np.maximum.accumulate(walk.log_kappa, axis=1) - walk.log_kappa


def growth(walk: Walk) -> np.ndarray:
    return walk.gap - walk.gap[:, :1]


Reading = Callable[[Walk], np.ndarray]

QUESTIONS: dict[str, tuple[Reading, Reading, np.ndarray]] = {
    "fall from clean, same gap": (fall_from_clean, lambda walk: walk.gap, EDGES),
    "fall from clean, same growth of the gap": (fall_from_clean, growth, GROWTH_EDGES),
    "fall from the ridge, same gap": (fall_from_ridge, lambda walk: walk.gap, EDGES),
}


@dataclass(frozen=True)
class Matched:
    """Fall of log κ, standard minus robust, nats: plain, at equal eps, and at the same gap.

    bins  for each bin with enough of both: its edges, mean falls of standard and robust, images of each
    """

    question: str
    plain: Interval
    matched: Interval
    bins: tuple[tuple[float, float, float, float, int, int], ...]

    @property
    def vanished(self) -> bool:
        return self.matched.covers_zero or abs(self.matched.value) <= SMALL * abs(self.plain.value)


def _sums(subjects: Sequence[Subject], fall: Reading, by: Reading, edges: np.ndarray) -> np.ndarray:
    """(images, bins, 2): sum of falls and number of points after the flip, for each image and bin."""
    sums = np.zeros((subjects[0].images, len(edges) - 1, 2))
    for one in subjects:
        for walk in one.walks:
            after = walk.wrong & walk.right_at_first[:, None]
            image, row = np.nonzero(after)
            place = np.digitize(by(walk)[image, row], edges) - 1
            inside = (place >= 0) & (place < len(edges) - 1)
            np.add.at(sums, (image[inside], place[inside], 0), fall(walk)[image[inside], row[inside]])
            np.add.at(sums, (image[inside], place[inside], 1), 1)
    return sums


def _plain(subjects: Sequence[Subject], fall: Reading) -> np.ndarray:
    """(images, radii, 2): fall at the end of the walk where the label is wrong then, and whether it is."""
    sums = np.zeros((subjects[0].images, len(subjects[0].walks), 2))
    for one in subjects:
        for place, walk in enumerate(one.walks):
            counted = walk.right_at_first & walk.wrong[:, -1]
            sums[:, place, 0] += np.where(counted, fall(walk)[:, -1], 0)
            sums[:, place, 1] += counted
    return sums


def _difference(sums: np.ndarray) -> np.ndarray:
    """Standard minus robust, (draws, bins, 4) → (draws,): bins weighted by the smaller of their two counts."""
    counts = sums[..., 1], sums[..., 3]
    weights = np.minimum(*counts)
    gap = sums[..., 0] / np.maximum(counts[0], 1) - sums[..., 2] / np.maximum(counts[1], 1)
    return (weights * gap).sum(axis=-1) / weights.sum(axis=-1)


FEWEST = 5
"""Images of either kind that a bin needs."""


def ask(question: str, standard: Sequence[Subject], robust: Sequence[Subject]) -> Matched:
    """One question about two kinds of networks on the same images."""
    fall, by, edges = QUESTIONS[question]
    sums = np.concatenate([_sums(some, fall, by, edges) for some in (standard, robust)], axis=2)
    images = (sums[..., [1, 3]] > 0).sum(axis=0)
    enough = (images >= FEWEST).all(axis=1)
    sums = sums[:, enough]
    total = sums.sum(axis=0)
    bins = tuple(
        (float(edges[:-1][enough][b]), float(edges[1:][enough][b]), total[b, 0] / total[b, 1], total[b, 2] / total[b, 3],
         int(images[enough][b, 0]), int(images[enough][b, 1]))
        for b in range(len(total))
    )  # fmt: skip
    plain = np.concatenate([_plain(some, fall) for some in (standard, robust)], axis=2)
    return Matched(question, over_images(plain, _difference), over_images(sums, _difference), bins)


def growth_per_radius(one: Subject, share: float = 0.5) -> list[tuple[float, float, Interval, Interval]]:
    """For each radius: eps, share of wrong labels at the end, −Δmargin over eps, fall of log κ, medians by image."""
    found = []
    for walk in one.walks:
        right = walk.right_at_first
        speed = (walk.margin[right, 0] - walk.margin[right, -1]) / walk.eps
        fall = (walk.log_kappa[:, 0] - walk.log_kappa[:, -1])[right]
        wrong = float(walk.wrong[right, -1].mean())
        found.append((walk.eps, wrong, _median(speed), _median(fall)))
    return found


def _median(values: np.ndarray) -> Interval:
    picks = np.random.default_rng(0).integers(0, len(values), (1000, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), (2.5, 97.5))
    return Interval(float(np.median(values)), float(low), float(high))


def growth_table(subjects: Sequence[Subject]) -> None:
    """Margin growth and fall of log κ at the end of the walk, one line a network and radius."""
    print(
        "\nEnd of the walk, images right at first: medians and 95 % intervals over images\n"
        f"{'':30}{'kind':>10}{'eps':>8}{'wrong':>7}{'margin lost, nats per 1/255':>29}{'fall of log κ':>25}"
    )
    for one in subjects:
        for eps, wrong, speed, fall in growth_per_radius(one):
            slow = Interval(*(value / 255 for value in speed))
            print(
                f"{f'{one.group} {one.name}':30}{one.kind:>10}{eps:>8.3f}{wrong:>7.0%}{slow.cell('.2f', 29)}{fall.cell('.2f', 25)}"
            )


def table(pair: str, found: Sequence[Matched]) -> None:
    """The bins of each question, then the difference matched and not."""
    for one in found:
        print(
            f"\n{pair}: {one.question}\n{'nats':>14}{'standard':>10}{'robust':>9}{'difference':>12}{'images':>12}"
        )
        for low, high, standard, robust, first, second in one.bins:
            print(
                f"{f'{low:g} to {high:g}':>14}{standard:>10.2f}{robust:>9.2f}{standard - robust:>+12.2f}{f'{first}, {second}':>12}"
            )
        print(
            f"  not matched, at equal eps {one.plain:+.2f}; matched {one.matched:+.2f}: {'vanished' if one.vanished else 'still there'}"
        )


def verdict(answers: dict[str, Sequence[Matched]]) -> bool:
    """Holds where the prediction as it stands vanishes for every pair."""
    stands = {pair: found[0] for pair, found in answers.items()}
    holds = all(one.vanished for one in stands.values())
    print(
        f"(iv) {'HOLDS' if holds else 'FAILS'} as it stands (fall from the clean image at the same logit gap): "
        + "; ".join(f"{pair} {one.matched:+.2f} of {one.plain:+.2f}" for pair, one in stands.items())
        + f".\n    An interval without 0 and a difference of more than {SMALL:.0%} of the unmatched one refutes it."
    )
    for place, question in enumerate(QUESTIONS):
        if place:
            kept = "; ".join(
                f"{pair} {found[place].matched:+.2f} of {found[place].plain:+.2f}"
                for pair, found in answers.items()
            )
            gone = all(found[place].vanished for found in answers.values())
            print(f"    {question}: {kept}: {'vanishes' if gone else 'does not vanish everywhere'}")
    return holds
