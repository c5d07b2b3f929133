"""The valley floor of a cosine head: no features lie below what is certified, and what is reached is attained."""

import math

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

import training_oracles as plain
import uncannyvalley as uv
from uncannyvalley import InputError
from uncannyvalley.head import Head
from uncannyvalley.measures import available
from uncannyvalley.theory.cosine_floor import ROUNDING, valley_floor
from uncannyvalley.types import Probe
from uncannyvalley.zoo.heads import plain_heads, with_cosine_head


def rows(classes: int, features: int, length: float, seed: int = 0) -> Tensor:
    drawn = torch.randn(classes, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return length * drawn / drawn.norm(dim=1, keepdim=True)


def log_kappa(weight: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """log κ of features and their top classes, by the recorder's own measure."""
    head = Head(weight, None)
    y = torch.zeros(len(points), dtype=torch.long)
    probe = Probe(points, points, y, None, torch.arange(len(points)), points, head.logits(points), head)
    return available()["log_relative_sharpness"](probe), probe.predicted


def unit(points: Tensor) -> Tensor:
    return points / points.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("length", [0.5, 3.0, 20.0, 100.0])
def test_two_classes_in_closed_form(length: float) -> None:
    """The gap is at most D = |w_0 − w_1|, and κ = p (1 − p) D² there."""
    weight = rows(2, 3, length)
    apart = (weight[0] - weight[1]).norm().item()
    expected = 2 * math.log(apart) - apart - 2 * math.log1p(math.exp(-apart))
    floor = valley_floor(weight)
    for found in (floor.certified, floor.reached):
        assert found.tolist() == pytest.approx([expected, expected], abs=2e-9 + 1e-12 * apart)


def test_two_classes_of_non_negative_features_in_closed_form() -> None:
    """Rows (1, 2) and (2, −1): w_0 − w_1 = (−1, 3), of which only the 3 can be used, and back only the 1."""
    weight = torch.tensor([[1.0, 2.0], [2.0, -1.0]], dtype=torch.float64)
    floor = valley_floor(weight, nonnegative=True)
    for class_, gap in ((0, 3.0), (1, 1.0)):
        p = 1 / (1 + math.exp(-gap))
        expected = math.log(10 * p * (1 - p))
        assert floor.certified[class_].item() == pytest.approx(expected, abs=1e-2 if class_ else 1e-7)
        assert floor.certified[class_].item() <= expected
        assert floor.reached[class_].item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(
    ("classes", "features", "length"), [(3, 2, 8.0), (5, 3, 1.0), (10, 16, 10.0), (10, 64, 30.0)]
)
def test_no_features_lie_below(classes: int, features: int, length: float, nonnegative: bool) -> None:
    weight = rows(classes, features, length)
    floor = valley_floor(weight, nonnegative=nonnegative)
    assert (floor.certified <= floor.reached).all()
    generator = torch.Generator().manual_seed(7)
    spread = torch.logspace(-3, 1, 4000, dtype=torch.float64)[:, None]
    drawn = torch.randn(4000, features, generator=generator, dtype=torch.float64)
    reachable = floor.directions[floor.reached.isfinite()]
    near = [direction + spread * drawn / math.sqrt(features) for direction in reachable]
    points = torch.cat([*near, weight, *(one + 0.3 * length * drawn for one in weight)])
    points = points.clamp(min=0) if nonnegative else points
    points = unit(points[points.norm(dim=1) > 0])
    values, top = log_kappa(weight, points)
    assert (values >= floor.certified[top] - 1e-9).all()
    if length >= 10:  # and the search has found the lowest there is
        assert (values >= floor.reached[top] - 1e-6).all()
    assert (values - floor.certified[top]).min() < (0.5 if length > 1 else 3.0)


@pytest.mark.parametrize(("length", "within"), [(10.0, 0.01), (20.0, 1e-5), (30.0, 1e-7)])
def test_deep_down_the_bound_is_the_floor(length: float, within: float) -> None:
    floor = valley_floor(rows(10, 64, length))
    assert (floor.reached - floor.certified).max() <= within + ROUNDING


@pytest.mark.parametrize("nonnegative", [False, True])
def test_what_is_reached_is_attained(nonnegative: bool) -> None:
    weight = rows(10, 16, 10.0)
    floor = valley_floor(weight, nonnegative=nonnegative)
    torch.testing.assert_close(floor.directions.norm(dim=1), torch.ones(10, dtype=torch.float64))
    values, top = log_kappa(weight, floor.directions)
    assert top.tolist() == list(range(10))
    torch.testing.assert_close(values, floor.reached, rtol=0, atol=1e-9)
    assert (floor.directions >= 0).all() == nonnegative


def test_it_is_reproducible_and_moves_no_generator() -> None:
    weight = rows(6, 5, 4.0)
    state = torch.get_rng_state()
    first, again = valley_floor(weight, steps=50, seed=3), valley_floor(weight, steps=50, seed=3)
    assert torch.equal(first.reached, again.reached)
    assert torch.equal(first.certified, again.certified)
    assert torch.equal(first.directions, again.directions)
    assert torch.equal(torch.get_rng_state(), state)


def test_more_classes_make_it_shallower_and_a_larger_scale_deeper() -> None:
    weight = rows(8, 16, 6.0)
    few, many, long = (
        valley_floor(one, restarts=0, steps=1).certified for one in (weight[:4], weight, 2 * weight)
    )
    assert (many[:4] > few).all()
    assert (long < many).all()


def test_a_class_that_no_non_negative_features_name() -> None:
    """Rows (1, 0), (0, 1) and (−1, 0) scaled: the third is never on top."""
    weight = 5 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    floor = valley_floor(weight, nonnegative=True)
    assert floor.reached.isfinite().tolist() == [True, True, False]
    assert floor.certified.isfinite().all()
    assert floor.reached[2] == torch.inf


def test_the_floor_of_a_network_holds_for_its_images() -> None:
    net, (x, y) = with_cosine_head(plain.small(), "head", 8.0).eval(), plain.images()
    model = uv.split(plain_heads(net), x)
    floor = valley_floor(model, nonnegative=True, restarts=0, steps=1)  # a ReLU feeds the head
    assert torch.equal(
        floor.certified, valley_floor(model.head, nonnegative=True, restarts=0, steps=1).certified
    )
    walk = uv.record(model, x, y, uv.attacks.pgd("l2", eps=3.0, step_size=0.3), steps=10)
    lowest = floor.certified.numpy()[walk.column("predicted").astype(int)]
    assert (walk.column("log_relative_sharpness") >= lowest - 1e-9).all()


def test_equal_rows_have_a_floor_of_their_own() -> None:
    """Two classes with one row: the others decide, and nothing is infinite."""
    weight = rows(4, 8, 6.0)
    weight[1] = weight[0]
    floor = valley_floor(weight)
    values, top = log_kappa(weight, unit(torch.randn(2000, 8, dtype=torch.float64)))
    assert (values >= floor.certified[top]).all()
    assert floor.certified[2:].isfinite().all()


def test_what_has_no_floor() -> None:
    config.update("jaxtyping_disable", True)  # as users run it
    try:
        weight = rows(4, 8, 6.0)
        with pytest.raises(InputError, match=r"rows of a cosine head have one length, .* from 6 to 12"):
            valley_floor(weight * torch.tensor([[1.0], [1.0], [1.0], [2.0]]))
        with pytest.raises(InputError, match="one length"):
            valley_floor(weight * torch.nan)
        with pytest.raises(InputError, match="at least 2 classes, got \\(1, 8\\)"):
            valley_floor(weight[:1])
        with pytest.raises(InputError, match="got list"):
            valley_floor([1.0])
        with pytest.raises(InputError, match="a cosine head has no bias"):
            valley_floor(Head(weight, torch.ones(4)))
        with pytest.raises(InputError, match="restarts must be a whole number of at least 0"):
            valley_floor(weight, restarts=-1)
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        with pytest.raises(InputError, match="the network has no cosine head"):
            valley_floor(uv.split(net, torch.rand(2, 1, 2, 2)))
    finally:
        config.update("jaxtyping_disable", False)
