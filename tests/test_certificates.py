"""Certified radii: exact where the truth is known, and never broken by an attack."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import data, head
from uncannyvalley.head import Head
from uncannyvalley.theory.certificate import certify, flip_distance, tsuzuku_radius
from uncannyvalley.theory.lipschitz import Lipschitz, lipschitz_bound, sampled_lipschitz
from uncannyvalley.types import gap_to_others

quick = settings(max_examples=40, deadline=None, derandomize=True)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flipped_by_pgd(net: nn.Module, x: Tensor, y: Tensor, radius: Tensor, steps: int = 40) -> Tensor:
    """Whether gradient ascent in L2 balls, one radius an example and no box, ever changes the label."""
    exact = uv.split(net, x, prepare=False).in_double()
    shape = (-1, *[1] * (x.dim() - 1))
    clean, radius = x.double(), radius.reshape(shape)
    moved, flipped = torch.zeros_like(clean), torch.zeros(len(x), dtype=torch.bool)
    for _ in range(steps):
        point = (clean + moved).requires_grad_()
        logits = exact(point)
        flipped |= logits.argmax(dim=1) != y
        (slope,) = torch.autograd.grad(gap_to_others(logits, y).sum(), point)
        moved = moved + radius / 4 * slope / slope.flatten(1).norm(dim=1).clamp(min=1e-300).reshape(shape)
        length = moved.flatten(1).norm(dim=1).reshape(shape)
        moved = moved * (radius / length.clamp(min=1e-300)).clamp(max=1)
    return flipped | (exact(clean + moved).argmax(dim=1) != y)


# --- flip distance ------------------------------------------------------------------------------------


def by_definition(logits: Tensor, weight: Tensor) -> Tensor:
    """One pair of classes after the other."""
    result = []
    for row in logits.double():
        t = int(row.argmax())
        terms = [
            (row[t] - row[s]) / (weight[t].double() - weight[s].double()).norm()
            for s in range(len(row))
            if s != t
        ]
        result.append(min(terms))
    return torch.stack(result)


@given(classes=st.integers(2, 12), width=st.integers(1, 6), seed=st.integers(0, 99))
@quick
def test_flip_distance_is_its_definition_for_small_heads_and_vocabularies(
    classes: int, width: int, seed: int
) -> None:
    weight = torch.randn(classes, width, generator=draws(seed))
    logits = torch.randn(5, classes, generator=draws(seed + 1))
    truth = by_definition(logits, weight)
    torch.testing.assert_close(flip_distance(logits, Head(weight, None)), truth, rtol=1e-12, atol=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "PAIRWISE_CLASSES", 1)
        patch.setattr(head, "CHUNK_CLASSES", 3)
        torch.testing.assert_close(flip_distance(logits, Head(weight, None)), truth, rtol=1e-12, atol=0)


@pytest.mark.parametrize("pairwise", [True, False])
def test_classes_with_equal_rows_never_meet_unless_tied(
    pairwise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "PAIRWISE_CLASSES", 2048 if pairwise else 1)
    weight = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    twins = Head(weight, torch.tensor([0.5, 0.0]))
    found = flip_distance(torch.tensor([[1.5, 1.0], [1.0, 1.0]]), twins)
    assert found.tolist() == [math.inf, 0.0]
    third = Head(torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 5.0]]), None)
    assert flip_distance(torch.tensor([[7.0, 6.0, 1.0]]), third).tolist() == [2.0]


def test_logits_of_another_head_are_an_error() -> None:
    with pytest.raises(uv.InputError, match="shape"):
        flip_distance(torch.zeros(2, 3), Head(torch.ones(4, 2), None))


@given(classes=st.integers(2, 9), width=st.integers(1, 6), seed=st.integers(0, 99))
@quick
def test_the_margin_radius_of_tsuzuku_is_never_larger(classes: int, width: int, seed: int) -> None:
    weight = torch.randn(classes, width, generator=draws(seed))
    logits = 10 * torch.randn(7, classes, generator=draws(seed + 1))
    both = Head(weight, None)
    margin = tsuzuku_radius(logits, both, 3.0)
    assert (margin <= flip_distance(logits, both) / 3 * (1 + 1e-12)).all()
    assert (margin > 0).all()


# --- certify ------------------------------------------------------------------------------------------


def stretched_rotation() -> nn.Module:
    """φ = 3Rx, so that L = 3 is reached in every direction and the radius is exact."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 12, bias=False), nn.Linear(12, 5)).double().eval()
    with torch.no_grad():
        net[1].weight.copy_(3 * torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))[0])
    return net


def plain_linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double().eval()


@pytest.mark.parametrize("make", [stretched_rotation, plain_linear])
def test_the_radius_of_a_linear_network_is_the_distance_to_its_boundary(
    make: Callable[[], nn.Module],
) -> None:
    net = make()
    x = torch.rand(20, 3, 2, 2, dtype=torch.float64, generator=draws(0))
    with torch.no_grad():
        logits = net(x)
        total = net[1].weight if len(net) == 2 else net[2].weight @ net[1].weight
    y = logits.argmax(dim=1)
    radius = certify(net, x, y).value
    torch.testing.assert_close(radius, by_definition(logits, total), rtol=1e-8, atol=0)
    for row in range(len(x)):
        gaps = logits[row, y[row]] - logits[row]
        lengths = (total[y[row]] - total).norm(dim=1)
        nearest = torch.where(lengths > 0, gaps / lengths, torch.inf).argmin()
        normal = (total[nearest] - total[y[row]]) / lengths[nearest]
        for factor, flips in ((1 - 1e-6, False), (1 + 1e-6, True)):
            there = x[row].flatten() + factor * radius[row] * normal
            assert (net(there.reshape(1, 3, 2, 2)).argmax() != y[row]).item() is flips


def test_misclassified_images_get_zero_and_the_bound_says_what_it_rests_on(
    small_net: nn.Module, small_images: tuple[Tensor, Tensor]
) -> None:
    x, _ = small_images
    with torch.no_grad():
        predicted = small_net(x).argmax(dim=1)
    wrong = (torch.arange(len(x)) % 3) == 0
    y = torch.where(wrong, (predicted + 1) % 4, predicted)
    bound = certify(small_net, x, y, batch_size=5)
    assert ((bound.value == 0) == wrong).all()
    assert (bound.side, bound.status) == ("lower", "certified")
    assert bound.value.dtype == torch.float64
    assert any("L2" in one for one in bound.assumptions)
    assert "certified lower bounds of 12 examples" in str(bound)
    whole = certify(uv.split(small_net, x), x, y).value  # prepared, and in one batch
    torch.testing.assert_close(whole, bound.value, rtol=1e-9, atol=0)


def test_an_estimated_constant_makes_an_estimated_radius(
    small_net: nn.Module, small_images: tuple[Tensor, Tensor]
) -> None:
    x, y = small_images
    sampled = sampled_lipschitz(small_net, x)
    estimated = certify(small_net, x, y, lipschitz=sampled)
    assert estimated.status == "estimated"
    assert (estimated.value >= certify(small_net, x, y).value).all()
    assert sampled.assumptions[0] in estimated.assumptions


def test_features_that_never_move_are_certified_everywhere() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(0 * x.flatten(1))

    net, x = Constant().eval(), torch.rand(3, 1, 2, 2)
    y = net(x).argmax(dim=1)
    assert certify(net, x, y).value.tolist() == [math.inf] * 3
    assert certify(net, x, (y + 1) % 3).value.tolist() == [0.0] * 3


def test_bad_arguments_are_named(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> None:
    x, y = small_images
    with pytest.raises(uv.InputError, match=r"\[0, 1\]"):
        certify(small_net, x * 255, y)
    with pytest.raises(uv.InputError, match="classes 0 to 3"):
        certify(small_net, x, y + 4)
    with pytest.raises(uv.InputError, match="batch_size"):
        certify(small_net, x, y, batch_size=0)
    with pytest.raises(uv.InputError, match="training mode"):
        certify(small_net.train(), x, y)
    with pytest.raises(uv.InputError, match="at least 0"):
        certify(small_net.eval(), x, y, lipschitz=Lipschitz(-1.0, "estimated", (), ()))


# --- attacks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_no_attack_inside_the_radius_flips_and_a_wide_one_does(seed: int) -> None:
    """Inputs of random networks with a residual block; the wide attack shows that the attack works."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.3), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(36, 16), nn.GELU(), nn.Linear(16, 4),
    )  # fmt: skip
    net(torch.rand(64, 1, 6, 6))
    net.eval()
    x = torch.rand(40, 1, 6, 6)
    with torch.no_grad():
        y = net(x).argmax(dim=1)
    radius = certify(net, x, y).value
    assert (radius > 0).all()
    assert not flipped_by_pgd(net, x, y, radius).any()
    assert flipped_by_pgd(net, x, y, 30 * radius).any()


REAL = ["mnist_conv_small_nat", "cifar10_cnn_a_adv", "cifar10_resnet2b_adv"]


@pytest.mark.parametrize("name", REAL)
def test_real_networks_have_radii_that_no_attack_breaks(
    name: str, load_network: Callable[[str], nn.Module], shared: Path
) -> None:
    images = data.load(f"parquet:{shared}/data/{name.split('_')[0]}/test.parquet")
    net, x, y = load_network(name), images[:32], images.labels[:32]
    bound = certify(net, x, y)
    with torch.no_grad():
        correct = net(x).argmax(dim=1) == y
    assert ((bound.value > 0) == correct).all()
    assert not flipped_by_pgd(net, x[correct], y[correct], bound.value[correct], steps=10).any()
    attack = uv.attacks.pgd(
        "l2", eps=bound.value[correct].min().item(), step_size=0.5 * bound.value.max().item()
    )
    walked = uv.record(net, x[correct], y[correct], attack, steps=10, measures=["margin"])
    assert not walked.column("adversarial").any()


def test_resnet_20_can_be_followed_to_its_end(
    correct_cifar: tuple[nn.Module, Tensor, Tensor],
) -> None:
    """Its global bound is huge, as for every deep network with batch norm; it is a bound all the same."""
    net, x, y = correct_cifar
    found = lipschitz_bound(net, x)
    sampled = sampled_lipschitz(net, x[:4], iterations=5)
    assert sampled.value < found.value < math.inf
    assert (certify(net, x[:8], y[:8], lipschitz=found).value > 0).all()
