"""The bound on the change of the loss holds everywhere, and is near the truth for small steps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import head
from uncannyvalley.head import Head
from uncannyvalley.theory.lipschitz import lipschitz_bound
from uncannyvalley.theory.loss_bound import head_diameter, loss_change_bound, tightness
from uncannyvalley.types import gap_to_others

quick = settings(max_examples=60, deadline=None, derandomize=True)
MEASURES = ["loss", "feature_gradient_norm", "log_relative_sharpness", "feature_norm", "distance_l2"]


def losses(logits: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.softplus(gap_to_others(logits, y))


def at_the_head(weight: Tensor, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """g and Var_p(w) in float64, written out."""
    p = logits.softmax(dim=1)
    gradient = (p - torch.nn.functional.one_hot(y, logits.shape[1])) @ weight
    centred = weight - (p @ weight)[:, None]
    return gradient.norm(dim=1), (p * centred.square().sum(dim=2)).sum(dim=1)


# --- at the head --------------------------------------------------------------------------------------


@given(classes=st.integers(2, 8), width=st.integers(1, 5), seed=st.integers(0, 999), step=st.floats(1e-3, 30))
@quick
def test_no_move_of_the_features_changes_the_loss_by_more(
    classes: int, width: int, seed: int, step: float
) -> None:
    """Random directions, and the steepest one, of length ``step``; L is 1 because features move themselves."""
    draws = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, width, dtype=torch.float64, generator=draws)
    features = 2 * torch.randn(6, width, dtype=torch.float64, generator=draws)
    y = torch.randint(classes, (6,), generator=draws)
    start = features @ weight.T
    gradient, variance = at_the_head(weight, start, y)
    allowed = loss_change_bound(gradient, variance, head_diameter(Head(weight, None)), 1.0, step)
    steepest = (start.softmax(dim=1) - torch.nn.functional.one_hot(y, classes)) @ weight
    for direction in (steepest, torch.randn(6, width, dtype=torch.float64, generator=draws)):
        unit = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-300)
        change = losses((features + step * unit) @ weight.T, y) - losses(start, y)
        assert (change <= allowed + 1e-12).all()


def test_the_bound_is_tight_to_third_order_for_short_steps_along_the_gradient() -> None:
    """Two classes: all of Var_p(w) lies along the gradient, so only the third order is left."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    features, y = torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor([0])
    gradient, variance = at_the_head(weight, features @ weight.T, y)
    direction = torch.tensor([[-1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    for step in (1e-1, 1e-2, 1e-3):
        change = losses((features + step * direction) @ weight.T, y) - losses(features @ weight.T, y)
        third = step**3 * head_diameter(Head(weight, None)) ** 3 / (36 * math.sqrt(3))
        ratio = tightness(change, loss_change_bound(gradient, variance, math.sqrt(2), 1, step))
        assert 1 - 2.1 * third / change <= ratio <= 1
        assert ratio > 1 - step**2


def test_the_third_moment_constant_is_the_smallest_possible() -> None:
    """|μ₃| of two values at distance R is at most R³/(6√3), and is that for one mixture."""
    p = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    third = (p * (1 - p) * (1 - 2 * p)).abs()
    assert third.max() == pytest.approx(1 / (6 * math.sqrt(3)), rel=1e-8)
    assert third.max() <= 1 / (6 * math.sqrt(3))


# --- on networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pgd", "noise", "assist"])
@pytest.mark.parametrize("eps", [0.01, 0.3, 3.0])
def test_recorded_walks_never_break_the_bound(
    small_net: nn.Module, small_images: tuple[Tensor, Tensor], name: str, eps: float
) -> None:
    """Computed from the columns of a trajectory alone, with the certified L."""
    x, y = small_images
    attack = uv.attacks.by_name(name)("l2", eps=eps, step_size=eps / 4)
    walked = uv.record(small_net, x, y, attack, steps=8, measures=MEASURES[:-1])
    columns = {one: walked.column(one) for one in MEASURES}
    variance = np.exp(columns["log_relative_sharpness"] - 2 * np.log(columns["feature_norm"]))
    model = uv.split(small_net, x)
    allowed = loss_change_bound(
        columns["feature_gradient_norm"][:, :1], variance[:, :1], head_diameter(model.head),
        lipschitz_bound(model).value, columns["distance_l2"],
    )  # fmt: skip
    change = columns["loss"] - columns["loss"][:, :1]
    assert (change <= allowed.numpy() + 1e-6).all()  # the losses are of a float32 network
    ratios = tightness(change, allowed)
    assert ratios[:, 0].isnan().all()  # nothing moved yet
    assert ratios[:, 1:].isfinite().all()
    if name == "pgd" and eps == 0.01:
        assert ratios[:, -1].max() > 0.01  # it says something


# --- the diameter -------------------------------------------------------------------------------------


@given(classes=st.integers(2, 20), width=st.integers(1, 5), seed=st.integers(0, 99))
@quick
def test_the_diameter_is_exact_for_small_heads_and_an_upper_bound_for_vocabularies(
    classes: int, width: int, seed: int
) -> None:
    weight = torch.randn(classes, width, generator=torch.Generator().manual_seed(seed))
    truth = max((a - b).norm().item() for a in weight.double() for b in weight.double())
    assert head_diameter(Head(weight, None)) == pytest.approx(truth, rel=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "PAIRWISE_CLASSES", 1)
        patch.setattr(head, "CHUNK_CLASSES", 3)
        assert truth * (1 - 1e-12) <= head_diameter(Head(weight, None)) <= 2 * truth


# --- arguments ----------------------------------------------------------------------------------------


def test_numbers_broadcast_and_impossible_ones_are_named() -> None:
    assert loss_change_bound(np.ones((3, 1)), torch.ones(3, 1), 1.0, 2.0, np.ones((3, 4))).shape == (3, 4)
    assert loss_change_bound(1.0, 1.0, 1.0, 2.0, 0.0).item() == 0
    for name in ("feature_gradient_norm", "variance", "diameter", "lipschitz", "distance"):
        given_numbers = dict.fromkeys(
            ("feature_gradient_norm", "variance", "diameter", "lipschitz", "distance"), 1.0
        )
        with pytest.raises(uv.InputError, match=name):
            loss_change_bound(**{**given_numbers, name: -1.0})
        with pytest.raises(uv.InputError, match=name):
            loss_change_bound(**{**given_numbers, name: np.array([math.nan])})
