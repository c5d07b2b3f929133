"""What chance decides: uniform starts, and the same rows for the same example."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.types import Attack
from worlds import CHEAP, NORMS, PIXELS, grey_images, iterates, linear_world, predictions

PATH = ["loss", "margin", "distance_linf", "distance_l2"]


# --- random starts ----------------------------------------------------------------------------------


def starts(norm: str, count: int) -> tuple[Tensor, Tensor]:
    """Clean grey images and their random starts at radius 0.2."""
    net, x = linear_world(2), grey_images(count)
    attack = uv.attacks.pgd(norm, eps=0.2, step_size=0.05, random_start=True)
    path = iterates(net, x, predictions(net, x), attack, steps=1)
    return x, path[1]


def test_a_random_start_is_uniform_in_the_linf_ball() -> None:
    x, start = starts("linf", 200)
    shares = ((start - x) / 0.2).flatten().numpy()
    assert stats.kstest(shares, stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_a_random_start_is_uniform_in_the_l2_ball() -> None:
    """The radius to the power of the dimension is uniform, and the direction has no mean."""
    x, start = starts("l2", 500)
    moved = ((start - x) / 0.2).flatten(1)
    radius = moved.norm(dim=1)
    assert stats.kstest((radius**PIXELS).numpy(), stats.uniform(0, 1).cdf).pvalue > 0.01
    assert (moved / radius[:, None]).mean(dim=0).norm() < 2 / math.sqrt(500)


@pytest.mark.parametrize("name", ["pgd", "momentum", "noise", "assist", "fgsm"])
def test_a_random_start_adds_one_row_after_the_clean_one(name: str) -> None:
    net, x = linear_world(2), grey_images(4)
    y = predictions(net, x)
    make = uv.attacks.by_name(name)
    for random_start, rows in ((False, 6), (True, 7)):
        attack = make(eps=0.1, step_size=0.01, random_start=random_start)
        recorded = uv.record(net, x, y, attack, steps=5, measures=CHEAP)
        away = recorded.column("distance_linf")
        assert away.shape == (4, rows)
        assert (away[:, 0] == 0).all()
        assert (away[:, 1] > 0.02).all() if random_start else np.allclose(away[:, 1], 0.01)


def test_fgsm_from_a_random_start_takes_one_step_from_there() -> None:
    net, x = linear_world(2), grey_images(4)
    attack = uv.attacks.fgsm(eps=0.1, step_size=0.01, random_start=True)
    loss = uv.record(net, x, predictions(net, x), attack, steps=3, measures=CHEAP).column("loss")
    assert np.isfinite(loss[:, :3]).all()
    assert np.isnan(loss[:, 3:]).all()


# --- the same example, the same rows ----------------------------------------------------------------


def walks_of_chance(norm: str) -> list[Attack]:
    return [
        uv.attacks.pgd(norm, eps=0.25, step_size=0.0625, random_start=True),
        uv.attacks.noise(norm, eps=0.25, step_size=0.0625),
    ]


def dyadic_world() -> tuple[nn.Module, Tensor, Tensor]:
    """Weights and pixels with few bits: every order of summation gives the same logits."""
    net, x = linear_world(3), grey_images(12)
    with torch.no_grad():
        net[1].weight.copy_((net[1].weight * 8).round() / 8)
        net[1].bias.copy_((net[1].bias * 8).round() / 8)
    x = (x * 256).round() / 256
    return net, x, predictions(net, x)


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("chance", [0, 1], ids=["pgd", "noise"])
def test_rows_do_not_depend_on_batch_order_or_company(chance: int, batch_size: int) -> None:
    net, x, y = dyadic_world()
    ids = [int(one) for one in torch.arange(12) * 7 + 3]
    chosen = [8, 2, 11, 5, 0, 7, 3]
    for norm in NORMS:
        attack = walks_of_chance(norm)[chance]
        whole = uv.record(net, x, y, attack, steps=6, ids=ids, measures=None)
        part = uv.record(
            net, x[chosen], y[chosen], attack, steps=6, ids=[ids[one] for one in chosen],
            batch_size=batch_size, measures=None,
        )  # fmt: skip
        assert part.examples.tolist() == [ids[one] for one in chosen]
        for name in whole.measures:
            expected, found = whole.column(name)[chosen], part.column(name)
            if norm == "linf" and name in PATH:
                np.testing.assert_array_equal(found, expected, err_msg=name)
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=name)


def test_rows_of_a_float32_convolution_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(6 * PIXELS, 4)
    ).eval()
    x = grey_images(12, dtype=torch.float32)
    y = predictions(net, x)
    attack = uv.attacks.pgd("l2", eps=0.5, step_size=0.1, random_start=True)
    model = uv.split(net, x)
    runs = [uv.record(model, x, y, attack, steps=6, batch_size=size) for size in (12, 5, 1)]
    for name, other in itertools.product(runs[0].measures, runs[1:]):
        np.testing.assert_allclose(
            other.column(name), runs[0].column(name), rtol=1e-4, atol=1e-4, err_msg=name
        )


@pytest.mark.parametrize("chance", [0, 1], ids=["pgd", "noise"])
def test_restarts_and_seeds_differ_and_come_back(chance: int) -> None:
    net, x = linear_world(3), grey_images(6)
    y, attack = predictions(net, x), walks_of_chance("linf")[chance]
    first = uv.record(net, x, y, attack, steps=3, restarts=3, seed=5)
    again = uv.record(net, x, y, attack, steps=3, restarts=3, seed=5)
    alone = uv.record(net, x, y, attack, steps=3, seed=5)
    other = uv.record(net, x, y, attack, steps=3, seed=6)
    assert first.table.equals(again.table)
    walks = [first.column("loss", restart=one) for one in range(3)]
    np.testing.assert_array_equal(alone.column("loss"), walks[0])
    for one, two in itertools.combinations([*walks, other.column("loss")], 2):
        np.testing.assert_array_equal(one[:, 0], two[:, 0])  # the clean row
        assert (one[:, 1] != two[:, 1]).all()


def test_an_example_walks_by_its_id() -> None:
    """Two copies of an image walk apart, and swap their walks with their ids."""
    net, x = linear_world(3), grey_images(1).repeat(2, 1, 1, 1)
    y, attack = predictions(net, x), uv.attacks.noise(eps=0.2, step_size=0.1)
    ahead = uv.record(net, x, y, attack, steps=3, ids=[4, 9], measures=CHEAP).column("loss")
    swapped = uv.record(net, x, y, attack, steps=3, ids=[9, 4], measures=CHEAP).column("loss")
    assert (ahead[0, 1:] != ahead[1, 1:]).all()
    np.testing.assert_array_equal(ahead, swapped[::-1])
