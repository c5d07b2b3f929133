"""Prediction (i): for confident points Δlog κ = −Δmargin + 2 Δlog|φ|, all networks and radii on one curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictions.band import Band, band
from predictions.drawing import Interval, over_images
from predictions.subjects import Subject

THRESHOLDS = (0.9, 0.99, 0.999)
SLACK = 1e-4
"""Nats, for features and logits in float32, before a point counts as outside its band."""

LEAST_EXPLAINED = 0.95
SLOPES = (0.9, 1.1)
FEWEST_IMAGES = 20
"""Below that many images a network's own slope is not judged."""


@dataclass(frozen=True)
class Points:
    """Changes from the clean image to points of its walks: predicted −Δg + 2 Δlog|φ|, and what came."""

    image: np.ndarray
    predicted: np.ndarray
    by_odds: np.ndarray
    came: np.ndarray

    @property
    def residual(self) -> np.ndarray:
        return self.came - self.predicted


@dataclass(frozen=True)
class Fit:
    """How a set of points obeys the prediction; r2 is of the prediction itself, nothing fitted.

    ``by_odds``: with the log-odds of the predicted class in the place of the logit gap.
    """

    name: str
    images: int
    points: int
    span: tuple[float, float]
    rms: Interval
    rms_by_odds: float
    offset: float
    largest: float
    width: float
    violations: int
    checked: int
    r2: Interval
    slope: Interval
    slope_by_odds: float


def points(one: Subject, low: float, high: float = 1.0) -> Points:
    """All rows whose confidence, there and at the clean image, is at least ``low``; at least one below ``high`` if < 1."""
    found: list[tuple[np.ndarray, ...]] = []
    for walk in one.walks:
        sure = np.minimum(walk.confidence, walk.confidence[:, :1])
        chosen = (sure >= low) & ((sure < high) if high < 1 else True)
        chosen[:, 0] = False
        norm = 2 * (walk.log_norm - walk.log_norm[:, :1])
        images = np.broadcast_to(np.arange(len(sure))[:, None], sure.shape)
        found.append(
            (
                images[chosen],
                (norm - (walk.gap - walk.gap[:, :1]))[chosen],
                (norm - (walk.odds - walk.odds[:, :1]))[chosen],
                (walk.log_kappa - walk.log_kappa[:, :1])[chosen],
            )
        )
    return Points(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def violations(one: Subject, limits: Band) -> tuple[int, int]:
    """Confident points, clean ones too, outside [L_t, U_t], and how many were looked at."""
    outside = looked = 0
    for walk in one.walks:
        sure = walk.confidence >= limits.confidence
        state = (walk.log_kappa + walk.gap - 2 * walk.log_norm)[sure]
        top = walk.top[sure]
        outside += int(((state < limits.low[top] - SLACK) | (state > limits.high[top] + SLACK)).sum())
        looked += int(sure.sum())
    return outside, looked


def fit(name: str, found: Points, images: int, width: float, violated: tuple[int, int]) -> Fit:
    """The prediction against what came; intervals draw images."""
    x, y, r = found.predicted, found.came, found.residual
    columns = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, r * r], axis=1)
    sums = np.zeros((images, columns.shape[1]))
    np.add.at(sums, found.image, columns)

    def explained(s: np.ndarray) -> np.ndarray:
        return 1 - s[:, 6] / (s[:, 5] - s[:, 2] ** 2 / s[:, 0])

    def slope(s: np.ndarray) -> np.ndarray:
        return (s[:, 4] - s[:, 1] * s[:, 2] / s[:, 0]) / (s[:, 3] - s[:, 1] ** 2 / s[:, 0])

    def spread(s: np.ndarray) -> np.ndarray:
        return np.sqrt(s[:, 6] / s[:, 0])

    empty = len(x) == 0
    nothing = Interval(np.nan, np.nan, np.nan)
    return Fit(
        name=name,
        images=len(np.unique(found.image)),
        points=len(x),
        span=(np.nan, np.nan) if empty else tuple(np.percentile(y, (5, 95)).tolist()),
        rms=nothing if empty else over_images(sums, spread),
        rms_by_odds=np.nan if empty else float(np.sqrt(np.mean((y - found.by_odds) ** 2))),
        offset=np.nan if empty else float(r.mean()),
        largest=np.nan if empty else float(np.abs(r).max()),
        width=width,
        violations=violated[0],
        checked=violated[1],
        r2=nothing if empty else over_images(sums, explained),
        slope=nothing if empty else over_images(sums, slope),
        slope_by_odds=np.nan if empty else float(np.polyfit(found.by_odds, y, 1)[0]),
    )


def pooled(name: str, parts: Sequence[tuple[Subject, Points]], fits: Sequence[Fit]) -> Fit:
    """All networks at once; images of one data set are drawn together over its networks."""
    first: dict[str, int] = {}
    images = 0
    for one, _ in parts:
        if one.group not in first:
            first[one.group] = images
            images += one.images
    shifted = [found.image + first[one.group] for one, found in parts]
    together = Points(
        np.concatenate(shifted),
        *(
            np.concatenate([getattr(found, key) for _, found in parts])
            for key in ("predicted", "by_odds", "came")
        ),
    )
    violated = sum(one.violations for one in fits), sum(one.checked for one in fits)
    return fit(name, together, images, max(one.width for one in fits), violated)


def judge(subjects: Sequence[Subject], threshold: float) -> list[Fit]:
    """One fit a network, then all of them together."""
    parts = [(one, points(one, threshold)) for one in subjects]
    fits = []
    for one, found in parts:
        limits = band(one.weight, threshold)
        fits.append(fit(f"{one.group} {one.name}", found, one.images, limits.width, violations(one, limits)))
    return [*fits, pooled("all", parts, fits)]


def unsure(subjects: Sequence[Subject]) -> list[Fit]:
    """The same where the clean image or the point has p_t < 0.9: there the prediction promises nothing."""
    parts = [(one, points(one, 0.0, THRESHOLDS[0])) for one in subjects]
    fits = [fit(f"{one.group} {one.name}", found, one.images, np.inf, (0, 0)) for one, found in parts]
    return [*fits, pooled("all", parts, fits)]


HEADER = (
    f"{'':30}{'images':>7}{'points':>8}{'Δlog κ, 5–95 %':>18}{'RMS left':>20}{'odds':>6}{'mean':>7}"
    f"{'largest':>8}{'band':>6}{'outside':>15}{'R²':>22}{'slope':>22}{'odds':>7}"
)


def table(title: str, fits: Sequence[Fit]) -> None:
    """One line a network."""
    print(f"\n{title}\n{HEADER}")
    for one in fits:
        span = "–" if one.points == 0 else f"{one.span[0]:+.1f} to {one.span[1]:+.1f}"
        outside = "–" if one.checked == 0 else f"{one.violations} of {one.checked}"
        width = "–" if np.isinf(one.width) else f"{one.width:.2f}"
        print(
            f"{one.name:30}{one.images:>7}{one.points:>8}{span:>18}{one.rms.cell('.2f', 20)}{one.rms_by_odds:>6.2f}"
            f"{one.offset:>+7.2f}{one.largest:>8.2f}{width:>6}{outside:>15}{one.r2.cell('.3f', 22)}{one.slope.cell('.3f', 22)}{one.slope_by_odds:>7.3f}"
        )


def verdict(fits: Sequence[Fit]) -> bool:
    """Holds or fails, by the rule that was written down before the walks."""
    every, own = fits[-1], [one for one in fits[:-1] if one.images >= FEWEST_IMAGES]
    low, high = SLOPES
    bent = [one.name for one in own if one.slope.high < low or one.slope.low > high]
    holds = every.violations == 0 and every.r2.low >= LEAST_EXPLAINED and not bent
    print(
        f"(i) {'HOLDS' if holds else 'FAILS'}: {every.violations} of {every.checked} points outside their band; of the variance of "
        f"Δlog κ {every.r2:.4f} is predicted, nothing fitted;\n    slopes outside {low}–{high}: {', '.join(bent) or 'none'} (of the "
        f"{len(own)} networks with {FEWEST_IMAGES} images or more). One point outside, R² below {LEAST_EXPLAINED},\n    or one "
        "network's slope wholly outside would have refuted it."
    )
    return holds
