"""What a detector cannot use gets one clear error that names what was expected, what came, and what to do."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

from uncannyvalley import ImageDetector, InputError, SharpnessDetector
from uncannyvalley.detect.questions import Question
from uncannyvalley.detect.recipes import LARGEST_BUDGET, Recipe, recipe_of


@pytest.fixture(autouse=True)
def _as_users_run_it() -> Iterator[None]:
    """Without the shape checks of the tests, which would refuse wrong types before the package can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *(shape or (1, 6, 6)), generator=torch.Generator().manual_seed(seed))


def rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def broken(value: float) -> Tensor:
    x = images(120)
    x[3, 0, 2, 2] = value
    return x


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fpr": 0}, "fpr must be a false-positive rate between 0 and 1"),
        ({"fpr": 5}, "such as 0.05; got 5"),
        ({"fpr": float("nan")}, "got nan"),
        ({"fpr": "0.05"}, "got '0.05'"),
        ({"budget": 0}, "budget must be a whole number of at least 1, got 0"),
        ({"budget": 2.0}, "budget must be a whole number"),
        ({"budget": True}, "budget must be a whole number"),
        (
            {"budget": LARGEST_BUDGET + 1},
            f"budget must be a whole number of forwards from 1 to {LARGEST_BUDGET}",
        ),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": None}, "seed must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"recipe": "mine"}, "recipe must be a Recipe"),
        ({"recipe": ["log_odds"]}, "recipe must be a Recipe"),
    ],
)
def test_settings(settings: dict[str, Any], says: str, small_net: nn.Module) -> None:
    with pytest.raises(InputError, match=says):
        ImageDetector(small_net, **settings)


@pytest.mark.parametrize("seed", [2**63, 2**70, 10**40])
def test_seeds_beyond_any_generator(seed: int, small_net: nn.Module) -> None:
    found = ImageDetector(small_net, budget=4, seed=seed).fit(images(120))
    assert np.isfinite(found.score_samples(images(3))).all()


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (broken(float("nan")), r"NaN or infinite values in 1 of 120 images \(first: 3\)"),
        (broken(2.0), r"must lie in \[0, 1\]"),
        (images(120) * 255, r"must lie in \[0, 1\]"),
        ((images(120) * 255).byte(), r"torch\.uint8; for bytes write"),
        (images(0), "x is empty"),
        (torch.rand(5), "batch axis"),
        ([1, 2], "got list"),
        (None, "got NoneType"),
        ("images", "got str"),
        (images(120, 1, 7, 7), r"images of (the )?shape"),
        (images(120, 3, 6, 6), r"images of (the )?shape"),
    ],
)
def test_images(x: object, says: str, small_net: nn.Module) -> None:
    with pytest.raises(InputError, match=says):
        ImageDetector(small_net, budget=4).fit(x)
    found = ImageDetector(small_net).fit(images(120))
    for call in (found.predict, found.p_values, found.score_samples, found.explain, found.columns):
        with pytest.raises(InputError, match=says):
            call(x)
    with pytest.raises(InputError, match=says):
        found.recalibrate(x, 0.1)
    if x is not None:
        with pytest.raises(InputError, match=says):
            ImageDetector(small_net).fit(images(120), x)


@pytest.mark.parametrize("net", [None, "resnet20", nn.Linear, lambda x: x, torch.rand(3)])
def test_networks(net: Any) -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        ImageDetector(net).fit(images(120))


def test_networks_in_training_or_without_a_head(small_net: nn.Module) -> None:
    with pytest.raises(InputError, match="training mode"):
        ImageDetector(small_net.train()).fit(images(120))
    with pytest.raises(InputError, match="head"):
        ImageDetector(nn.Sequential(nn.Flatten(), nn.Softmax(dim=1)).eval()).fit(images(120))


def test_networks_that_answer_nan(small_net: nn.Module) -> None:
    with torch.no_grad():
        small_net[-1].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        ImageDetector(small_net).fit(images(120))


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.predict(images(3)), lambda d: d.p_values(images(3)), lambda d: d.score_samples(images(3)),
        lambda d: d.explain(images(3)), lambda d: d.columns(images(3)), lambda d: d.recalibrate(images(100), 0.1),
        lambda d: d.suspicion, lambda d: d.threshold, lambda d: d.calibration, lambda d: d.forwards, lambda d: d.backwards,
        lambda d: d.estimator, lambda d: d.recipe, lambda d: d.model, lambda d: d.save("nowhere"),
    ],
)  # fmt: skip
def test_before_it_was_fitted(call: Callable[[ImageDetector], object], small_net: nn.Module) -> None:
    with pytest.raises(
        InputError, match=r"has seen no clean images yet; call fit\(x_clean, calibration\) first"
    ):
        call(ImageDetector(small_net))


@pytest.mark.parametrize(
    ("fpr", "fitted", "held", "says"),
    [
        (
            0.05,
            99,
            None,
            "x_clean holds 99 images, and fpr=0.05 without calibration images needs 100; give more",
        ),
        (0.01, 196, None, "fpr=0.01 without calibration images needs 198"),
        (0.05, 49, 60, "x_clean holds 49 images; a detector is fitted on at least 50"),
        (0.05, 60, 18, "calibration holds 18 images; fpr=0.05 needs at least 19"),
        (0.01, 60, 98, "calibration holds 98 images; fpr=0.01 needs at least 99"),
        (0.001, 60, 100, "fpr=0.001 needs at least 999"),
        (0.05, 1, None, "needs 100"),
    ],
)
def test_too_few_images(fpr: float, fitted: int, held: int | None, says: str, small_net: nn.Module) -> None:
    calibration = None if held is None else images(held, seed=1)
    with pytest.raises(InputError, match=says):
        ImageDetector(small_net, fpr=fpr).fit(images(fitted), calibration)


def test_just_enough_images(small_net: nn.Module) -> None:
    for fpr, fitted, held in (
        (0.05, 100, None),
        (0.01, 198, None),
        (0.01, 197, None),
        (0.05, 50, 19),
        (0.01, 50, 99),
    ):
        found = ImageDetector(small_net, fpr=fpr)
        found.fit(images(fitted), None if held is None else images(held, seed=1))
        assert np.isfinite(found.threshold)


@pytest.mark.parametrize("contamination", [-0.1, 1, 2, float("nan"), "some", None])
def test_contamination(contamination: Any, small_net: nn.Module) -> None:
    found = ImageDetector(small_net).fit(images(120))
    before = found.threshold
    with pytest.raises(InputError, match="contamination must be a share"):
        found.recalibrate(images(100), contamination)
    assert found.threshold == before


def test_too_little_traffic(small_net: nn.Module) -> None:
    found = ImageDetector(small_net).fit(images(120))
    with pytest.raises(InputError, match="needs at least 37 clean calibration images, got 30"):
        found.recalibrate(images(30), 0.5)


def test_images_too_small_for_changes(small_net: nn.Module) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    with pytest.raises(
        InputError, match=r"at least 3 by 3 pixels; got shape .*; a detector with budget=1 needs none"
    ):
        ImageDetector(net, budget=4).fit(images(120, 1, 2, 2))
    assert ImageDetector(net).fit(images(120, 1, 2, 2)).forwards == 1


@pytest.mark.parametrize("budget", [0, -1, 65, 1.0, "4", True, None])
def test_budgets_of_recipes(budget: Any) -> None:
    with pytest.raises(InputError, match="budget must be a whole number of forwards from 1 to 64"):
        recipe_of(budget)


@pytest.mark.parametrize(
    ("columns", "questions", "says"),
    [
        ((), (Question("a", {"log_odds": 1.0}),), "at least one column"),
        (
            ("log_odds", "nothing"),
            (Question("a", {"log_odds": 1.0}),),
            "unknown column of a detector 'nothing'",
        ),
        (("log_odds",), (Question("a", {"energy": 1.0}),), "asks about energy, which the rows do not have"),
        (("log_odds", "log_odds"), (Question("a", {"log_odds": 1.0}),), "each once"),
        (("inner_sharpness@9",), (Question("a", {"inner_sharpness@9": 1.0}),), "unknown layer '9'"),
    ],
)
def test_recipes(
    columns: tuple[str, ...], questions: tuple[Question, ...], says: str, small_net: nn.Module
) -> None:
    with pytest.raises(InputError, match=says):
        ImageDetector(small_net, recipe=Recipe("own", columns, questions)).fit(images(120))


# --- questions and the estimator ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Question("a", {"x": 1.0}, "up"), lambda: Question("a", {}), lambda: Question("a", ["x", "y"]),
        lambda: Question("a", {"x": float("nan")}, "low"), lambda: Question("a", {"x": 1.0}, weight=float("nan")),
        lambda: Question("a", {"x": 1.0}, weight=-1.0), lambda: Question("a", {"x": float("inf")}, "low"),
        lambda: Question("a", {"x": "much"}, "low"), lambda: Question("a", {"x": 1.0}, "both", given=("y",)),
    ],
)  # fmt: skip
def test_questions(make: Callable[[], Question]) -> None:
    with pytest.raises(InputError, match="question"):
        make()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"columns": ("a", "b")}, "columns must name the 3 columns of X, each once"),
        ({"columns": ("a", "b", "a")}, "each once"),
        ({"columns": "abc"}, "columns must name"),
        ({"questions": ["a"]}, "questions must be a list of Question"),
        ({"questions": [Question("a", {"7": 1.0})]}, "asks about 7"),
        ({"fpr": 7}, "fpr must be"),
    ],
)
def test_estimator_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        SharpnessDetector(**settings).fit(rows(60, 3))


@pytest.mark.parametrize(
    "classes",
    [
        np.zeros(1, int),
        np.zeros(59, int),
        np.zeros((60, 1), int),
        -np.ones(60, int),
        np.zeros(60),
        ["a"] * 60,
        5,
        None,
    ],
)
def test_classes(classes: Any) -> None:
    x = rows(60, 2)
    found = SharpnessDetector().fit(x, classes=np.arange(60) % 2)
    with pytest.raises(InputError, match="classes must"):
        found.score_samples(x, classes)
    with pytest.raises(InputError, match="classes must"):
        found.calibrate(x, classes=classes)
    if classes is not None:
        with pytest.raises(InputError, match="classes must"):
            SharpnessDetector().fit(x, classes=classes)
    with pytest.raises(
        InputError, match="classes must be given to all of fit, calibrate and score, or to none"
    ):
        SharpnessDetector().fit(x).score_samples(x, np.zeros(60, int))


def test_calibration_of_the_estimator() -> None:
    found = SharpnessDetector().fit(rows(60, 2))
    with pytest.raises(InputError, match="needs at least 19 clean calibration images, got 10"):
        found.calibrate(rows(10, 2))
    with pytest.raises(InputError, match="call calibrate"):
        found.p_values(rows(3, 2))
    with pytest.raises(ValueError, match="not fitted"):
        SharpnessDetector().calibrate(rows(60, 2))
    with pytest.raises(ValueError, match="features"):
        found.score_samples(rows(5, 3))
    with pytest.raises(ValueError, match="NaN"):
        found.score_samples(rows(5, 2) * np.nan)


def test_huge_rows_are_no_trouble() -> None:
    for scale in (1e200, 1e-300, 1e30):
        found = SharpnessDetector().fit(rows(100, 3) * scale)
        assert np.isfinite(found.score_samples(rows(50, 3, seed=1) * scale)).all()
        assert found.predict(np.full((1, 3), 50 * scale)).tolist() == [-1]
