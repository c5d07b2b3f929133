"""Published detectors behind this package's interface: their numbers, their sides, what they cost, what they refuse."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from mpmath import mp
from torch import Tensor, nn

from uncannyvalley.detect.baselines import BASELINES, MOVED, TOGETHER, baseline, published
from uncannyvalley.detect.changes import change
from uncannyvalley.detect.columns import make_columns
from uncannyvalley.detect.image_detector import ImageDetector
from uncannyvalley.detect.looks import Look, Looker
from uncannyvalley.detect.recipes import recipe_of
from uncannyvalley.errors import InputError
from uncannyvalley.splitting import split

FORWARDS = {
    **dict.fromkeys(published(), 1),
    "feature_squeezing": 3,
    "noise_log_odds": 5,
    "all_jointly": 7,
    "all_summed": 7,
    **{name: 5 for name in BASELINES if name.endswith(("support", "drift"))},
    **{name: 3 for name in BASELINES if name.endswith("fragility")},
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(160, 1, 6, 6, generator=torch.Generator().manual_seed(5))


def look_with(logits: Tensor, copies: dict[str, Tensor], net: nn.Module) -> Look:
    """A look whose network answered with these logits, which no real one would be so sure of."""
    here = Looker(split(net, torch.rand(8, 1, 6, 6)), ())(torch.rand(len(logits), 1, 6, 6)).probe
    here = replace(here, logits=logits, y=logits.argmax(dim=1))
    return Look(here, {name: replace(here, logits=one) for name, one in copies.items()})


def column(name: str, look: Look, net: nn.Module) -> np.ndarray:
    return make_columns([name], split(net, torch.rand(8, 1, 6, 6))).read(look)[:, 0].numpy()


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_each_is_fitted_scores_and_costs_what_it_says(
    name: str, small_net: nn.Module, images: Tensor
) -> None:
    detector = ImageDetector(small_net, fpr=0.1, recipe=baseline(name)).fit(images[:80], images[80:])
    assert detector.forwards == FORWARDS[name]
    assert detector.backwards == 0
    scores = detector.score_samples(images[:20])
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 5
    assert np.array_equal(detector.predict(images[:20]) < 0, scores < -detector.threshold)


@pytest.mark.parametrize("name", ["feature_squeezing", "noise_log_odds", "margin_drift", "all_summed"])
def test_a_saved_one_answers_alike(name: str, small_net: nn.Module, images: Tensor, tmp_path: Path) -> None:
    detector = ImageDetector(small_net, recipe=baseline(name)).fit(images[:80], images[80:])
    detector.save(tmp_path / "a.detector")
    again = ImageDetector.load(tmp_path / "a.detector", small_net)
    assert np.array_equal(again.score_samples(images), detector.score_samples(images))


def test_all_together_ask_what_each_asks() -> None:
    questions = published()
    for name in TOGETHER:
        asked = [one for question in baseline(name).questions for one in question.columns]
        assert sorted(asked) == sorted(one for question in questions.values() for one in question.columns)
    assert baseline("all_summed").questions == tuple(questions.values())
    assert len(baseline("all_jointly").questions) == 1


def test_this_packages_questions_are_those_of_its_recipes() -> None:
    of_recipe = {one.name: one for one in recipe_of(7).questions}
    moves = recipe_of(7).columns[0].partition("@")[2].split(",")
    for name in ("support", "drift"):
        (question,) = baseline(name, moves=moves).questions
        assert question == of_recipe[name]


def test_the_moves_are_those_asked_for() -> None:
    assert baseline("margin_support", moves=["left", "up"]).columns == ("margin@left,up",)
    assert baseline("noise_log_odds", draws=2).columns == ("odds_change@noise,noise2",)
    assert baseline("sharpness_drift").columns == (f"rise@{','.join(MOVED)}",)


@pytest.mark.parametrize("name", ["gini", "max_softmax", "energy", "feature_norm", "sharpness"])
def test_confidence_is_asked_on_both_sides(name: str) -> None:
    assert [one.side for one in baseline(name).questions] == ["both"]


@pytest.mark.parametrize("name", ["mahalanobis", "local_dimension", "feature_squeezing", "noise_log_odds"])
def test_detectors_of_attacks_stay_one_sided(name: str) -> None:
    assert [one.side for one in baseline(name).questions] == ["high"]


# --- their numbers ----------------------------------------------------------------------------------------


def test_columns_of_one_forward_in_plain_double_precision(small_net: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        z = small_net(images[:20]).double().numpy()
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    ordered = np.sort(z, axis=1)
    expected = {
        "max_softmax": np.log(1 - p.max(axis=1)),
        "entropy": np.log(-(p * np.log(p)).sum(axis=1)),
        "gini": np.log(1 - (p**2).sum(axis=1)),
        "energy": np.log(np.exp(z).sum(axis=1)),
        "margin": ordered[:, -1] - ordered[:, -2],
    }
    looker = Looker(split(small_net, images[:8]), ())
    for name, values in expected.items():
        (asked,) = baseline(name).columns
        assert column(asked, looker(images[:20]), small_net) == pytest.approx(values, rel=1e-4, abs=1e-5)


def test_squeezing_takes_the_copy_that_moves_the_softmax_most(small_net: nn.Module, images: Tensor) -> None:
    # the median moves noise most; plain grey it leaves alone, and rounding does not
    grey = torch.linspace(0.2, 0.8, 20).view(-1, 1, 1, 1).expand(-1, 1, 6, 6)
    x = torch.cat([images[:20], grey])
    with torch.no_grad():
        here = small_net(x).double().softmax(dim=1)
        away = [
            (small_net(change(name)(x)).double().softmax(dim=1) - here).abs().sum(dim=1)
            for name in ("quantised", "median")
        ]
    assert (away[0] > away[1]).any()
    assert (away[1] > away[0]).any()
    looker = Looker(split(small_net, images[:8]), ("quantised", "median"))
    found = column("softmax_change@quantised,median", looker(x), small_net)
    assert found == pytest.approx(torch.stack(away).amax(dim=0).log().numpy(), abs=1e-3)


def test_squeezing_is_exact_where_the_softmax_rounds_to_one(small_net: nn.Module) -> None:
    here = torch.tensor([[90.0, 1.0, 0.0, -3.0], [3.0, 80.0, 1.0, 0.0]])
    copy = torch.tensor([[88.0, 1.0, 0.5, -3.0], [1.0, 85.0, 1.0, 0.0]])
    found = column("softmax_change@blur", look_with(here, {"blur": copy}, small_net), small_net)
    mp.dps = 80
    for row in range(2):
        a, b = (softmax_in_many_digits(one[row].tolist()) for one in (here, copy))
        expected = mp.log(sum(abs(q - p) for p, q in zip(a, b, strict=True)))
        assert found[row] == pytest.approx(float(expected), abs=1e-9)


def softmax_in_many_digits(logits: list[float]) -> list[mp.mpf]:
    powers = [mp.exp(one) for one in logits]
    return [one / sum(powers) for one in powers]


def test_log_odds_under_noise_average_before_the_maximum(small_net: nn.Module) -> None:
    here = torch.tensor([[2.0, 0.0, 1.0, -1.0], [0.0, 4.0, 1.0, 0.0]])
    draws = {
        "noise": torch.tensor([[2.0, 3.0, 1.0, -1.0], [0.0, 3.0, 1.0, 0.0]]),
        "noise2": torch.tensor([[1.0, -3.0, 2.0, -1.0], [0.0, 5.0, 1.0, 0.5]]),
    }
    found = column("odds_change@noise,noise2", look_with(here, draws, small_net), small_net)
    # row 0, class 0 predicted: changes of z_1 − z_0 are +3 and −2, of z_2 − z_0 are 0 and +2, of z_3 − z_0 are 0 and +1
    # row 1, class 1 predicted: of z_0 − z_1 +1 and −1, of z_2 − z_1 the same, of z_3 − z_1 +1 and −0.5
    assert found == pytest.approx([1.0, 0.25])


def test_the_margin_rises_by_what_the_predicted_class_of_the_image_gains(small_net: nn.Module) -> None:
    here = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    flipped = torch.tensor([[0.0, 5.0, 1.0, -1.0]])
    found = column("margin_rise@left", look_with(here, {"left": flipped}, small_net), small_net)
    assert found == pytest.approx([-5.0 - 1.0])


@pytest.mark.parametrize("name", [*published(), *TOGETHER])
def test_the_suspicion_can_be_followed(name: str, small_net: nn.Module, images: Tensor) -> None:
    detector = ImageDetector(small_net, recipe=baseline(name)).fit(images[:80], images[80:])
    x = images[60:100].clone().requires_grad_()
    features = detector.model.features(x)
    probe = Looker(detector.model, ())(images[60:100]).probe
    live = replace(probe, x=x, features=features, logits=detector.model.head.logits(features))
    (slope,) = torch.autograd.grad(detector.suspicion(live).sum(), x)
    assert torch.isfinite(slope).all()
    assert (slope.flatten(1) != 0).any(dim=1).float().mean() > 0.5


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.fixture
def _as_users_run_it() -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_as_users_run_it")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "ginny"}, "did you mean 'gini'"),
        ({"name": "gini", "moves": "mirror"}, "moves is a list of changes"),
        ({"name": "gini", "moves": []}, "moves is a list of changes"),
        ({"name": "gini", "draws": 0}, "draws must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        baseline(**settings)


def test_an_unknown_move_is_refused_when_fitted(small_net: nn.Module, images: Tensor) -> None:
    with pytest.raises(InputError, match="unknown"):
        ImageDetector(small_net, recipe=baseline("support", moves=["sideways"])).fit(images)
