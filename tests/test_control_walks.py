"""Walks that are no attack, and the ball and the box that no walk leaves."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.types import Attack
from worlds import (
    CHEAP,
    NORMS,
    PIXELS,
    all_attacks,
    cornered_images,
    curved_world,
    distances,
    grey_images,
    iterates,
    linear_world,
    predictions,
)

# --- control walks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("world", [lambda: linear_world(2), curved_world], ids=["linear", "curved"])
def test_assist_never_flips_and_grows_confident(world: Callable[[], nn.Module], norm: str) -> None:
    net, x = world(), grey_images(20)
    attack = uv.attacks.assist(norm, eps=0.3, step_size=0.02)
    recorded = uv.record(net, x, predictions(net, x), attack, steps=15, measures=["confidence", "log_loss"])
    assert not recorded.column("adversarial").any()
    assert (np.diff(recorded.column("log_loss"), axis=1) < 0).all()
    assert (recorded.column("confidence")[:, -1] > recorded.column("confidence")[:, 0]).all()


def test_noise_moves_each_pixel_by_a_fresh_fair_sign() -> None:
    net, x = linear_world(2), grey_images(200)
    first, second, third = iterates(
        net, x, predictions(net, x), uv.attacks.noise(eps=0.2, step_size=0.05), steps=2
    )
    signs = torch.stack([(second - first) / 0.05, (third - second) / 0.05]).flatten(1)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs), rtol=0, atol=1e-12)
    draws = signs.shape[1]
    assert (signs.mean(dim=1).abs() < 4 / math.sqrt(draws)).all()
    assert abs((signs[0] * signs[1]).mean()) < 4 / math.sqrt(draws)  # steps are independent
    images = signs[0].view(len(x), -1)
    assert len(images.unique(dim=0)) == len(x)  # and so are the examples


def test_noise_in_l2_moves_by_its_step_in_no_preferred_direction() -> None:
    net, x = linear_world(2), grey_images(400)
    first, second = iterates(
        net, x, predictions(net, x), uv.attacks.noise("l2", eps=0.2, step_size=0.05), steps=1
    )
    moved = (second - first).flatten(1)
    torch.testing.assert_close(
        moved.norm(dim=1), torch.full((400,), 0.05, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert (moved / 0.05).mean(dim=0).norm() < 4 / math.sqrt(400)  # its square is 1/400 on average


# --- ball and box -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("place", [grey_images, cornered_images])
def test_no_walk_leaves_its_ball_or_the_box(
    place: Callable[[int], Tensor], random_start: bool, norm: str
) -> None:
    net, x = curved_world(), place(20)
    y = predictions(net, x)
    for attack in all_attacks(norm, random_start):
        path = iterates(net, x, y, attack, steps=8)
        furthest = torch.stack([distances(one, x, norm) for one in path]).amax()
        assert furthest <= 0.3 * (1 + 1e-12), attack.name
        assert furthest > 0.0999, attack.name  # it moved: no vacuous ball
        assert all(one.amin() >= 0 and one.amax() <= 1 for one in path), attack.name


@pytest.mark.parametrize("norm", NORMS)
def test_recorded_distances_are_those_of_the_images_and_stay_in_the_ball(norm: str) -> None:
    net, x = curved_world(torch.float32), cornered_images(20).float()
    y = predictions(net, x)
    for attack in all_attacks(norm, random_start=True):
        path = iterates(net, x, y, attack, steps=6)
        recorded = uv.record(net, x, y, attack, steps=6, measures=CHEAP)
        for kind in NORMS:
            truth = torch.stack([distances(one.double(), x.double(), kind) for one in path], dim=1)
            values = recorded.column(f"distance_{kind}")[:, : len(path)]
            walked = np.isfinite(values)  # all of it, but for rows that stop at their flip
            assert walked.all() or attack.name == "early"
            np.testing.assert_allclose(
                values[walked], truth.numpy()[walked], rtol=1e-6, atol=0, err_msg=attack.name
            )
        within = recorded.column(f"distance_{norm}")[:, : len(path)]
        assert (within[:, 0] == 0).all()
        assert (
            within[np.isfinite(within)] <= 0.3 + 2**-22
        ).all()  # pixels are float32: half an ulp each for x and x + eps


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [uv.attacks.pgd, uv.attacks.momentum])
def test_an_example_without_gradient_stays_where_it_is(make: Callable[..., Attack], norm: str) -> None:
    """Not even to NaN, though steps divide by the length of the gradient; its neighbour moves on."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 3), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    with torch.no_grad():
        net[1].weight.fill_(1.0)
        net[1].bias.fill_(-8.0)
    x = torch.cat([torch.full((1, 1, 4, 4), value, dtype=torch.float64) for value in (0.2, 0.8)])
    last = iterates(net, x, torch.tensor([0, 0]), make(norm, eps=0.1, step_size=0.05), steps=3)[-1]
    moved = distances(last, x, norm)
    assert moved[0] == 0
    assert moved[1] == pytest.approx(0.1)
