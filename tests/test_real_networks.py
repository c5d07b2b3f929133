"""On a real network and real images: what the paper saw, and numbers that can be trusted where they are tiny."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley.probe import Prober
from uncannyvalley.types import LOG_LOSS_GRAD

pytestmark = pytest.mark.shared

Given = tuple[nn.Module, Tensor, Tensor]


@pytest.fixture(scope="module")
def walks(correct_cifar: Given) -> dict[str, uv.Trajectory]:
    """PGD Linf 8/255 in 40 steps of 0.5/255 without random start, and its controls, on 32 images."""
    net, x, y = correct_cifar
    model = uv.split(net, x)
    attack = uv.attacks.pgd(eps=8 / 255, step_size=0.5 / 255)
    return {
        one.name: uv.record(model, x[:32], y[:32], one, steps=40)
        for one in (attack, *uv.attacks.controls_of(attack))
    }


def test_the_walk_climbs_flips_and_falls_into_the_valley(walks: dict[str, uv.Trajectory]) -> None:
    trajectory = walks["pgd"]
    kappa = np.exp(trajectory.column("log_relative_sharpness")).mean(axis=0)
    assert kappa[1:6].max() > 5 * kappa[0]
    assert kappa[1:6].max() > 80
    assert kappa[-1] < 0.1
    assert trajectory.column("adversarial")[:, -1].all()
    found = uv.phases(trajectory)
    assert (found.depth > 0).mean() >= 0.95
    assert np.median(np.abs(found.ridge_step - found.flip_step)) <= 1


def test_controls_have_neither_ridge_nor_flip(walks: dict[str, uv.Trajectory]) -> None:
    found = uv.phases(walks["pgd"], [walks["noise"], walks["assist"]])
    attack, noise, assist = found.summary().walks
    assert attack.ridge.value > 0.7
    assert noise.ridge.value < 0.1
    assert noise.valley.value < 0.1
    assert assist.flipped.value == 0
    assert assist.depth.value > 30
    assert abs(attack.shares["change"]["change_gini"]) > 0.9 * abs(attack.shares["change"]["change"])
    assert abs(attack.shares["change"]["change_geometry"]) < 0.5


def test_no_doubt_fires_on_a_standard_network(correct_cifar: Given, walks: dict[str, uv.Trajectory]) -> None:
    net, x, y = correct_cifar
    found = uv.phases(walks["pgd"], [walks["noise"]], diagnostics=uv.diagnose(net, x, y))
    assert not [one for one in found.diagnostics if one.fired]


def test_the_prepared_copy_is_the_network(load_network, cifar: tuple[Tensor, Tensor]) -> None:
    x = cifar[0][:64]
    for name in ("cifar10_resnet20", "cifar10_resnet32", "cifar10_resnet2b_adv", "cifar10_cnn_a_adv"):
        net = load_network(name)
        model = uv.split(net, x)
        with torch.no_grad():
            expected, found = net(x), model(model.place(x))
        largest = expected.abs().amax(dim=1)
        assert ((found - expected).abs().amax(dim=1) / largest).max() < 1e-5, name


def confident(given: Given) -> Given:
    net, x, y = given
    with torch.no_grad():
        sure = net(x).softmax(dim=1).gather(1, y[:, None]).squeeze(1) == 1
    assert sure.sum() >= 8
    return net, x[sure][:16], y[sure][:16]


def test_gradient_signs_where_float32_is_certain(correct_cifar: Given) -> None:
    """Where p_y rounds to 1 plain cross-entropy loses its largest term; the form we use keeps it."""
    net, x, y = confident(correct_cifar)
    exact = copy.deepcopy(net).double()
    wanted = Prober(uv.split(exact, x.double(), prepare=False), x.double(), y)(x.double(), {LOG_LOSS_GRAD})
    model = uv.split(net, x, prepare=False)
    ours = Prober(model, x, y)(x, {LOG_LOSS_GRAD}).log_loss_grad.sign()
    truth = wanted.log_loss_grad.sign().float()
    plain = x.clone().requires_grad_()
    nn.functional.cross_entropy(net(plain), y, reduction="sum").backward()
    assert (ours == truth).float().mean() >= 0.999
    assert (plain.grad.sign() == truth).float().mean() < 0.9


def test_float32_walks_keep_their_digits_in_the_valley(correct_cifar: Given) -> None:
    """log κ of the float32 network against the float64 network at the same images."""
    net, x, y = confident(correct_cifar)
    attack = uv.attacks.noise(eps=1e-3, step_size=1e-3)
    single = uv.record(net, x, y, attack, steps=1, measures=["log_relative_sharpness"])
    double = uv.record(
        copy.deepcopy(net).double(), x.double(), y, attack, steps=1, measures=["log_relative_sharpness"]
    )
    name = "log_relative_sharpness"
    np.testing.assert_allclose(single.column(name)[:, 0], double.column(name)[:, 0], atol=1e-3)
    assert single.column(name)[:, 0].max() < math.log(1e-3)


def test_examples_do_not_depend_on_their_batch(correct_cifar: Given) -> None:
    """Beyond float error: step 0 agrees, and so does every step of the control that takes no signs of gradients."""
    net, x, y = correct_cifar
    attack = uv.attacks.noise(eps=8 / 255, step_size=2 / 255, random_start=True)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    together = uv.record(net, x[:24], y[:24], attack, steps=3, batch_size=24)
    apart = uv.record(net, x[:24][order], y[:24][order], attack, steps=3, batch_size=5, ids=order.tolist())
    for name in ("log_relative_sharpness", "loss", "distance_l2"):
        np.testing.assert_allclose(apart.column(name), together.column(name)[order], atol=2e-3, err_msg=name)


def test_robust_networks_have_no_valley_at_this_radius(load_network, cifar: tuple[Tensor, Tensor]) -> None:
    net = load_network("cifar10_resnet2b_adv")
    x, y = cifar[0][:48], cifar[1][:48]
    attack = uv.attacks.pgd(eps=8 / 255, step_size=1 / 255)
    found = uv.phases(uv.record(net, x, y, attack, steps=20))
    assert abs(found.own_summary.depth.value) < 2
