"""The detectors that the study compares, by part: budgets, baselines, families of features, and the largest recipe without a piece."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from uncannyvalley.detect.baselines import BASELINES, TOGETHER, baseline, published
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import GRAINS, MOVES, Recipe, asking, recipe_of

BUDGETS = (1, 2, 4, 8, 16)
WHOLE = f"budget {BUDGETS[-1]}"
"""The recipe that everything else is held against."""

FORWARD = (
    "log_relative_sharpness", "log_gini", "log_norm", "log_geometry", "log_trace", "logit_gap", "energy",
)  # fmt: skip


def by_budget() -> dict[str, Recipe]:
    """The package's own recipes."""
    return {f"budget {budget}": recipe_of(budget) for budget in BUDGETS}


def whole() -> dict[str, Recipe]:
    """The largest of them."""
    return {WHOLE: recipe_of(BUDGETS[-1])}


def baselines() -> dict[str, Recipe]:
    """Each published baseline alone, all of them together in two ways, and the package's own recipe."""
    return {name: baseline(name) for name in (*published(), *TOGETHER)} | whole()


def credit() -> dict[str, Recipe]:
    """The questions about copies, asked of the log-odds, of the margin and of log κ: alone, and in the largest recipe's place.

    The margin's and log κ's drift is their own change from the image to its copies, on both sides.
    """
    own = [name for name in BASELINES if name not in (*published(), *TOGETHER)]
    alone = {name: baseline(name, moves=MOVES) for name in own}
    asked = {name: recipe.questions[0] for name, recipe in alone.items()}
    _, drift, *image = recipe_of(BUDGETS[-1]).questions
    replaced = {}
    for words, what in (("margin", "margin"), ("log κ", "sharpness")):
        support = asked[f"{what}_support"]
        replaced[f"support of {words}"] = (support, drift, *image)
        replaced[f"both of {words}"] = (support, asked[f"{what}_drift"], *image)
    return alone | {name: asking(name, some) for name, some in replaced.items()} | whole()


def families(layers: Sequence[str]) -> dict[str, Recipe]:
    """Families of features, each alone and all together: one joint two-sided question about each."""
    moves = ",".join(MOVES)
    changes = (
        *(f"{what}@{moves}" for what in ("log_odds", "travel", "drift", "rise")),
        "travel@blur", "travel@noise", "log_odds@median", "log_odds@quantised",
    )  # fmt: skip
    walk = [
        f"{what}@{copy}"
        for what in ("log_odds", "rise", "travel")
        for copy in ("climb1", "climb3", "descent3")
    ]
    groups = {"one forward": FORWARD, "benign changes": changes, "short walk": walk, "image alone": GRAINS}
    if layers:
        groups["inner layers"] = [f"inner_sharpness@{one}" for one in layers]
    asked = {name: Question(name, dict.fromkeys(columns, 1.0)) for name, columns in groups.items()}
    alone = {name: asking(name, (one,)) for name, one in asked.items()}
    return alone | {"all together": asking("all together", tuple(asked.values()))} | whole()


def lesions() -> dict[str, Recipe]:
    """The largest recipe without one of its questions, with those of one kind alone, and without limits."""
    questions = recipe_of(BUDGETS[-1]).questions
    image = tuple(one for one in questions if one.name in ("grain", "pattern"))
    copies = tuple(one for one in questions if one not in image)
    without = {
        f"without {one.name}": tuple(other for other in questions if other is not one) for one in questions
    }
    asked = without | {
        "copies alone": copies,
        "image alone": image,
        "no limits": tuple(replace(one, limit=None) for one in questions),
    }
    return whole() | {name: asking(name, some) for name, some in asked.items()}


TABLES: dict[str, tuple[str, Callable[[], dict[str, Recipe]]]] = {
    "budgets": ("budgets", by_budget),
    "baselines": ("baselines alone, and together", baselines),
    "credit": ("questions about copies, asked of the log-odds, of the margin, of log κ", credit),
    "lesions": ("the largest recipe without a piece", lesions),
}
"""Part → its title and detectors."""
