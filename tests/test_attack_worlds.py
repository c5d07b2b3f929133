"""Attacks in worlds whose answer is known: a linear boundary, a textbook loop, a ball, a counted network."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import hadamard
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import measures
from uncannyvalley.probe import Prober
from uncannyvalley.recording import Recording, walk
from uncannyvalley.types import Attack

NORMS = ("linf", "l2")
PIXELS = 16
PATH = ["loss", "margin", "distance_linf", "distance_l2"]
CHEAP = ["loss"]


# --- worlds -----------------------------------------------------------------------------------------


def linear_world(classes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Logits that are linear in the pixels, with all boundaries near the grey image."""
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, classes)).to(dtype).eval()
    weight = torch.randn(classes, PIXELS, generator=draw, dtype=dtype)
    with torch.no_grad():
        net[1].weight.copy_(weight)
        net[1].bias.copy_(-0.5 * weight.sum(dim=1))
    return net


def curved_world(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small network with a hidden layer, five classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 24), nn.Tanh(), nn.Linear(24, 5)).to(dtype).eval()


def grey_images(count: int, spread: float = 0.1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images (n, 1, 4, 4) within ``spread`` of ½: far from the walls of [0, 1]."""
    draw = torch.Generator().manual_seed(seed)
    return 0.5 + spread * (2 * torch.rand(count, 1, 4, 4, generator=draw, dtype=dtype) - 1)


def cornered_images(count: int) -> Tensor:
    """Images with many pixels at 0 and at 1."""
    draw = torch.Generator().manual_seed(1)
    return (2 * torch.rand(count, 1, 4, 4, generator=draw, dtype=torch.float64) - 0.5).clamp(0, 1)


def predictions(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(dim=1)


def at_distance(net: nn.Module, x: Tensor, radius: float, norm: str) -> Tensor:
    """Images moved along the normal of a two-class linear world until their boundary is ``radius`` away."""
    normal = (net[1].weight[0] - net[1].weight[1]).detach()
    dual = normal.abs().sum() if norm == "linf" else normal.norm()
    with torch.no_grad():
        logits = net(x)
    difference = logits[:, 0] - logits[:, 1]
    missing = difference.sign() * radius * dual - difference
    return x + (missing[:, None] * normal / normal.square().sum()).view_as(x)


def iterates(
    net: nn.Module, x: Tensor, y: Tensor, attack: Attack, steps: int, target: Tensor | None = None
) -> list[Tensor]:
    """Every image of the walk, the clean ones first."""
    model = uv.split(net, x)
    prober = Prober(model, x, y, target, attack.objective, aims=attack.targeted)
    recording = Recording(steps, measures.resolve(CHEAP))
    return [probe.x for _, probe in walk(prober, attack, recording, range(len(x)), 0)]


def distances(x: Tensor, clean: Tensor, norm: str) -> Tensor:
    moved = (x - clean).flatten(1)
    return moved.abs().amax(dim=1) if norm == "linf" else moved.norm(dim=1)


def all_attacks(norm: str, random_start: bool) -> Iterator[Attack]:
    """Each attack with a step of a third of its radius."""
    for make in uv.attacks.ATTACKS.values():
        yield make(norm, eps=0.3, step_size=0.1, random_start=random_start)


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


def cross_entropy_gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


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
            np.testing.assert_allclose(values, truth, rtol=1e-6, atol=0, err_msg=attack.name)
        within = recorded.column(f"distance_{norm}")[:, : len(path)]
        assert (within[:, 0] == 0).all()
        assert (within <= 0.3 + 2**-22).all()  # pixels are float32: half an ulp each for x and x + eps


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


def test_every_keeps_the_clean_row_and_the_last() -> None:
    net, x = curved_world(), grey_images(3)
    y, attack = predictions(net, x), uv.attacks.pgd(eps=0.1, step_size=0.02)
    full = uv.record(net, x, y, attack, steps=10)
    thinned = uv.record(net, x, y, attack, steps=10, every=4)
    kept = [0, 4, 8, 10]
    for name in (*full.measures, "predicted", "adversarial"):
        values = thinned.column(name)
        np.testing.assert_array_equal(values[:, kept], full.column(name)[:, kept], err_msg=name)
        assert np.isnan(np.delete(values, kept, axis=1)).all(), name
    assert len(thinned.table) == 3 * len(kept)


# --- what a walk costs ------------------------------------------------------------------------------


class Count(torch.autograd.Function):
    """The identity, counting its calls."""

    forwards = 0
    backwards = 0

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        Count.forwards += 1
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        Count.backwards += 1
        return gradient


class Counted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Count.apply(x)


def cost_of(attack: Attack, wanted: list[str], **options: int) -> tuple[int, int]:
    """Forwards and backwards of the network's body for 20 steps of one batch."""
    net = nn.Sequential(Counted(), *curved_world()).eval()
    x = grey_images(4)
    y = predictions(net, x)
    model = uv.split(net, x)
    Count.forwards = Count.backwards = 0
    uv.record(model, x, y, attack, steps=20, measures=wanted, **options)
    return Count.forwards, Count.backwards


@pytest.mark.parametrize("make", [uv.attacks.pgd, uv.attacks.momentum, uv.attacks.assist])
def test_twenty_steps_with_every_measure_cost_21_forwards_and_21_backwards(
    make: Callable[..., Attack],
) -> None:
    everything = list(measures.available())
    attack = make(eps=0.1, step_size=0.01)
    assert cost_of(attack, everything) == (21, 21)
    assert cost_of(attack, CHEAP) == (21, 20)  # nobody asks for the gradient at the last image
    started = make(eps=0.1, step_size=0.01, random_start=True)
    assert cost_of(started, everything) == (22, 22)


def test_noise_alone_needs_no_backward() -> None:
    attack = uv.attacks.noise(eps=0.1, step_size=0.01)
    assert cost_of(attack, CHEAP) == (21, 0)
    assert cost_of(attack, CHEAP, restarts=2) == (42, 0)


def test_rows_that_are_not_kept_cost_no_backward() -> None:
    attack = uv.attacks.noise(eps=0.1, step_size=0.01)
    assert cost_of(attack, ["input_gradient_norm"], every=10) == (21, 3)
