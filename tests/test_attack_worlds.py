"""Attacks whose answer is known: a linear boundary, a textbook loop, a target."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.types import Attack
from worlds import (
    CHEAP,
    NORMS,
    PIXELS,
    at_distance,
    cornered_images,
    cross_entropy_gradient,
    curved_world,
    grey_images,
    iterates,
    linear_world,
    predictions,
)

# --- a linear boundary ------------------------------------------------------------------------------

REACHING = {
    "fgsm": lambda norm, eps: uv.attacks.fgsm(norm, eps=eps),
    "pgd": lambda norm, eps: uv.attacks.pgd(norm, eps=eps, step_size=eps / 4),
    "pgd-random": lambda norm, eps: uv.attacks.pgd(norm, eps=eps, step_size=eps / 4, random_start=True),
    "momentum": lambda norm, eps: uv.attacks.momentum(norm, eps=eps, step_size=eps / 4),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", REACHING)
def test_a_linear_boundary_is_crossed_from_just_inside_and_never_from_just_outside(
    name: str, norm: str
) -> None:
    net, radius = linear_world(2), 0.1
    x = at_distance(net, grey_images(20), radius, norm)
    y = predictions(net, x)
    assert set(y.tolist()) == {0, 1}
    steps = 1 if name == "fgsm" else 40
    enough = uv.record(net, x, y, REACHING[name](norm, 1.001 * radius), steps=steps, measures=CHEAP)
    assert enough.column("adversarial")[:, -1].all()
    short = uv.record(net, x, y, REACHING[name](norm, 0.999 * radius), steps=steps, measures=CHEAP)
    assert not short.column("adversarial").any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [uv.attacks.pgd, uv.attacks.momentum])
def test_the_first_flip_of_two_classes_lies_within_a_step_of_the_optimum(
    make: Callable[..., Attack], norm: str
) -> None:
    net, radius, step = linear_world(2, seed=1), 0.08, 0.01
    x = at_distance(net, grey_images(20), radius, norm)
    recorded = uv.record(
        net, x, predictions(net, x), make(norm, eps=0.3, step_size=step), steps=20, measures=[]
    )
    flipped = recorded.column("adversarial") == 1
    found = np.where(flipped, recorded.column(f"distance_{norm}"), np.inf).min(axis=1)
    assert (found > radius * (1 - 1e-9)).all()
    assert (found <= radius + step * (1 + 1e-9)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_among_many_classes_comes_within_a_quarter_of_the_nearest_boundary(norm: str) -> None:
    """Rows of a Hadamard matrix: all boundaries are equally steep, so the nearest is that of the least margin.

    Large weights make the loss follow its largest competitor, as its maximum over the ball should.
    """
    net, x = linear_world(8), grey_images(80)
    rows = 50 * torch.from_numpy(hadamard(PIXELS)[1:9]).double()
    with torch.no_grad():
        net[1].weight.copy_(rows)
        net[1].bias.copy_(-0.5 * rows.sum(dim=1))
        largest, second = net(x).topk(2).values.T
    steepness = {"linf": 50 * 16.0, "l2": 50 * math.sqrt(32)}[norm]  # |w_s − w_s'|, dual to the norm
    nearest = ((largest - second) / steepness).numpy()
    x, nearest = x[nearest > 0.01], nearest[nearest > 0.01]
    assert len(x) >= 20
    attack = uv.attacks.pgd(norm, eps=1.25 * nearest.max(), step_size=0.001)
    recorded = uv.record(net, x, predictions(net, x), attack, steps=150, measures=[])
    flipped = recorded.column("adversarial") == 1
    found = np.where(flipped, recorded.column(f"distance_{norm}"), np.inf).min(axis=1)
    assert (found >= nearest * (1 - 1e-9)).all()
    assert (found <= 1.25 * nearest).all()


def test_fgsm_is_one_step_along_the_sign_of_the_gradient_inside_the_box() -> None:
    net, x = curved_world(), cornered_images(10)
    y = torch.arange(10) % 5
    found = iterates(net, x, y, uv.attacks.fgsm(eps=0.2), steps=1)
    expected = (x + 0.2 * cross_entropy_gradient(net, x, y).sign()).clamp(0, 1)
    torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-15)


def test_fgsm_in_l2_is_one_step_along_the_gradient() -> None:
    net, x = curved_world(), grey_images(10)
    y = torch.arange(10) % 5
    gradient = cross_entropy_gradient(net, x, y)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = iterates(net, x, y, uv.attacks.fgsm("l2", eps=0.2), steps=1)
    torch.testing.assert_close(found[1], x + 0.2 * gradient / length, rtol=0, atol=1e-12)


def test_fgsm_records_nothing_after_its_step() -> None:
    net, x = linear_world(2), grey_images(3)
    recorded = uv.record(net, x, predictions(net, x), uv.attacks.fgsm(eps=0.1), steps=4, measures=CHEAP)
    for name in ("loss", "distance_linf", "adversarial", "predicted"):
        values = recorded.column(name)
        assert values.shape == (3, 5)
        assert np.isfinite(values[:, :2]).all()
        assert np.isnan(values[:, 2:]).all()


# --- textbook loops ---------------------------------------------------------------------------------


def textbook_walk(
    net: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float, step: float, steps: int, decay: float | None
) -> list[Tensor]:
    """Madry's PGD (decay None) or Dong's momentum, image by image, on plain cross-entropy."""
    walks = []
    for image, label in zip(x.split(1), y.split(1), strict=True):
        path, velocity = [image], torch.zeros_like(image)
        for _ in range(steps):
            gradient = cross_entropy_gradient(net, path[-1], label)
            velocity = gradient if decay is None else decay * velocity + gradient / gradient.abs().sum()
            unit = velocity.sign() if norm == "linf" else velocity / velocity.norm()
            moved = path[-1] + step * unit - image
            moved = moved.clamp(-eps, eps) if norm == "linf" else moved * min(1.0, eps / moved.norm().item())
            path.append((image + moved).clamp(0, 1))
        walks.append(torch.cat(path))
    return list(torch.stack(walks, dim=1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("decay", [None, 1.0, 0.5])
def test_walks_are_those_of_the_textbook(norm: str, decay: float | None) -> None:
    net, x = curved_world(), cornered_images(6)
    y = predictions(net, x)
    settings = {"eps": 0.25, "step_size": 0.06}
    attack = (
        uv.attacks.pgd(norm, **settings)
        if decay is None
        else uv.attacks.momentum(norm, decay=decay, **settings)
    )
    found = iterates(net, x, y, attack, steps=12)
    expected = textbook_walk(net, x, y, norm, 0.25, 0.06, 12, decay)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_momentum_leaves_the_path_of_pgd() -> None:
    """Else the comparison above could not see a velocity that is forgotten."""
    net, x = curved_world(), cornered_images(6)
    y = predictions(net, x)
    plain, heavy = (
        iterates(net, x, y, make("l2", eps=0.25, step_size=0.06), steps=12)[-1]
        for make in (uv.attacks.pgd, uv.attacks.momentum)
    )
    assert (plain - heavy).abs().amax() > 1e-3


# --- targets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [uv.attacks.pgd, uv.attacks.momentum])
@pytest.mark.parametrize("norm", NORMS)
def test_a_targeted_walk_ends_in_its_target(make: Callable[..., Attack], norm: str) -> None:
    net, x = linear_world(4), grey_images(30)
    y = predictions(net, x)
    target = (y + 1 + torch.arange(30) % 3) % 4
    eps = 0.4 if norm == "linf" else 1.6
    attack = make(norm, eps=eps, step_size=eps / 10, targeted=True)
    recorded = uv.record(net, x, y, attack, steps=40, measures=CHEAP, target=target)
    np.testing.assert_array_equal(recorded.column("target")[:, -1], target)
    np.testing.assert_array_equal(recorded.column("predicted")[:, -1], target)


def test_the_default_target_is_the_least_likely_wrong_class_of_the_clean_image() -> None:
    net, x = curved_world(), grey_images(30)
    with torch.no_grad():
        logits = net(x)
    y = logits.argmin(dim=1)  # the least likely class is the label itself: the next one must be taken
    second_lowest = logits.sort(dim=1).indices[:, 1]
    attack = uv.attacks.pgd(eps=0.4, step_size=0.05, targeted=True)
    target = uv.record(net, x, y, attack, steps=3, measures=CHEAP).column("target")
    np.testing.assert_array_equal(target, np.repeat(second_lowest.numpy()[:, None], 4, axis=1))
