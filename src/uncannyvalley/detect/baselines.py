"""Published detectors, and this package's own questions with another number in the place of the log-odds.

Each is a ``Recipe`` behind the same ImageDetector, so that all are fitted, calibrated and judged alike, and all numbers are
logarithms: a float32 confidence of 1 is no answer. Confidence, norm and log κ are asked on both sides (strong attacks make
a network surer, early stopped ones less sure); what was published as a one-sided detector of attacks stays one-sided.

    max_softmax        log(1 − max p) (Hendrycks and Gimpel 2017, arXiv 1610.02136)
    entropy            log(−Σ p log p)
    gini               log(1 − Σ p²)
    energy             logsumexp z (Liu et al. 2020, arXiv 2010.03759)
    feature_norm       log |φ|
    margin             z_t − max_{s≠t} z_s
    sharpness          log κ at the head, alone
    mahalanobis        one-sided, penultimate features only (Lee et al. 2018, arXiv 1807.03888, uses all layers and is supervised)
    local_dimension    one-sided, penultimate features only (Ma et al. 2018, arXiv 1801.02613, likewise)
    feature_squeezing  one-sided: log of the largest L1 distance of softmax between the image and its squeezed copies (Xu et
                       al. 2018, arXiv 1704.01155, CIFAR: 5 bits, median 2 by 2, non-local means; here 3 bits, median 3 by 3)
    noise_log_odds     one-sided: the largest mean change of log-odds towards another class under noise (Roth et al. 2019,
                       arXiv 1902.04818). There each pair of classes is z-scored before the maximum, for several strengths of
                       noise; here the maximum, at one strength, is compared within the predicted class
    all_jointly        one two-sided question about all columns above
    all_summed         Fisher's sum of all questions above

    support, drift                        this package's questions about copies, each alone
    fragility                             how much further a light blur moves the features than noise does, given confidence and norm
    margin_… and sharpness_…              the same with the margin, or log κ, for the log-odds: support is read of it at the
                                          moved copies, drift becomes its own change, fragility is given it
"""

from collections.abc import Callable, Sequence

from uncannyvalley.checks import check_count
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import MOVES, Recipe, asking
from uncannyvalley.errors import InputError, unknown_name

SQUEEZED = ("quantised", "median")

MOVED = MOVES[:4]
"""Copies that the responses are read at unless told otherwise."""

DRAWS = 4
"""Draws of noise of the log-odds test; published: 256 and more."""

CONFIDENCE = {
    "max_softmax": "log_error_probability",
    "entropy": "log_entropy",
    "gini": "log_gini",
    "energy": "energy",
    "feature_norm": "log_norm",
    "margin": "logit_gap",
    "sharpness": "log_relative_sharpness",
}
"""Baselines that are one column of one forward, two-sided."""

FEATURES = {"mahalanobis": "log_mahalanobis", "local_dimension": "log_local_dimension"}

TOGETHER = ("all_jointly", "all_summed")

Builder = Callable[[Sequence[str], int], Recipe]


def baseline(name: str, *, moves: Sequence[str] = MOVED, draws: int = DRAWS) -> Recipe:
    """The baseline of that name.

    moves  changes of the image at which support and drift are read; leave the mirror out where it changes the class
    draws  of noise, for the log-odds test

    Raises InputError for unknown names, for no moves and for fewer than one draw.

    Example
    -------
    >>> baseline("gini").columns
    ('log_gini',)
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, BASELINES)
    if isinstance(moves, str) or not moves:
        raise InputError(f"moves is a list of changes such as {list(MOVED)}, got {moves!r}")
    return BASELINES[name](tuple(moves), check_count("draws", draws, 1))


def published(draws: int = DRAWS) -> dict[str, Question]:
    """The question of each published baseline, by name."""
    noises = ",".join("noise" if draw == 1 else f"noise{draw}" for draw in range(1, draws + 1))
    one_sided = FEATURES | {
        "feature_squeezing": f"softmax_change@{','.join(SQUEEZED)}",
        "noise_log_odds": f"odds_change@{noises}",
    }
    found = {name: Question(name, {column: 1.0}) for name, column in CONFIDENCE.items()}
    return found | {name: Question(name, {column: 1.0}, "high") for name, column in one_sided.items()}


def _published(name: str) -> Builder:
    return lambda moves, draws: asking(name, [published(draws)[name]])


def _jointly(moves: Sequence[str], draws: int) -> Recipe:
    read = {column: 1.0 for one in published(draws).values() for column in one.columns}
    return asking("all_jointly", [Question("all baselines", read)])


def _summed(moves: Sequence[str], draws: int) -> Recipe:
    return asking("all_summed", tuple(published(draws).values()))


def _support(name: str, what: str, side: str) -> Builder:
    return lambda moves, draws: asking(name, [Question(name, {f"{what}@{','.join(moves)}": 1.0}, side)])


def _fragility(name: str, given: str) -> Builder:
    read = {"travel@blur": 1.0, "travel@noise": -1.0}
    return lambda moves, draws: asking(name, [Question(name, read, "high", (given, "log_norm"))])


BASELINES: dict[str, Callable[..., Recipe]] = {
    **{name: _published(name) for name in published()},
    "all_jointly": _jointly,
    "all_summed": _summed,
    "support": _support("support", "log_odds", "low"),
    "margin_support": _support("margin_support", "margin", "low"),
    "sharpness_support": _support("sharpness_support", "log_relative_sharpness", "both"),
    "drift": _support("drift", "drift", "high"),
    "margin_drift": _support("margin_drift", "margin_rise", "both"),
    "sharpness_drift": _support("sharpness_drift", "rise", "both"),
    "fragility": _fragility("fragility", "log_odds"),
    "margin_fragility": _fragility("margin_fragility", "logit_gap"),
    "sharpness_fragility": _fragility("sharpness_fragility", "log_relative_sharpness"),
}
