"""Gradients in the input, where the gradient of plain cross-entropy is lost."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from cases import Case
from uncannyvalley import objectives
from uncannyvalley.probe import Prober
from uncannyvalley.types import OBJECTIVE_GRAD
from worlds import cross_entropy_gradient


def small_network(sharpness: float, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).to(dtype).eval()
    with torch.no_grad():
        net[3].weight *= sharpness
    return net


def images(count: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_input_gradient_norm_is_that_of_cross_entropy() -> None:
    net, x = small_network(3.0, torch.float64), images(6, torch.float64)
    y = torch.arange(6)
    walk = uv.attacks.noise(eps=0.1, step_size=0.05)
    names = ["input_gradient_norm", "log_input_gradient_norm", "feature_gradient_norm"]
    recorded = uv.record(net, x, y, walk, steps=1, measures=names)
    truth = cross_entropy_gradient(net, x, y).flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(recorded.column("input_gradient_norm")[:, 0], truth, rtol=1e-9)
    np.testing.assert_allclose(recorded.column("log_input_gradient_norm")[:, 0], np.log(truth), atol=1e-9)


def test_input_gradient_norm_survives_float32_in_the_valley() -> None:
    """Two linear classes: |∂ℓ/∂x| = (1 − p_y) |w_0 − w_1|, which float32 loses beyond a gap of 17."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    difference = torch.tensor([150.0, -100.0, 50.0, 100.0])
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([difference, torch.zeros(4)]))
        net[1].bias.zero_()
    x = torch.full((1, 1, 2, 2), 0.75)
    recorded = uv.record(
        net, x, torch.tensor([0]), uv.attacks.noise(eps=0.1, step_size=0.1), steps=1,
        measures=["log_input_gradient_norm", "margin"],
    )  # fmt: skip
    assert recorded.column("margin")[0, 0] == 150.0
    truth = -150.0 + math.log(difference.norm())
    assert recorded.column("log_input_gradient_norm")[0, 0] == pytest.approx(truth, abs=1e-4)


def test_log_loss_keeps_the_gradient_signs_that_cross_entropy_loses() -> None:
    exact_net, net = small_network(200.0, torch.float64), small_network(200.0, torch.float32)
    x = images(400, torch.float32)
    y = net(x).argmax(dim=1)
    certain = net(x).softmax(dim=1).amax(dim=1) == 1
    calm = exact_net(x.double()).topk(2).values.diff().abs().flatten() < 25  # float64 still holds the truth
    x, y = x[certain & calm].detach(), y[certain & calm]
    assert len(x) >= 20
    truth = cross_entropy_gradient(exact_net, x.double(), y).sign()
    prober = Prober(uv.split(net, x), x, y, objective=objectives.log_loss)
    ours = prober(x, {OBJECTIVE_GRAD}).objective_grad
    plain = cross_entropy_gradient(net, x, y)
    assert (ours.sign() == truth).double().mean() >= 0.999
    assert (plain.sign() == truth).double().mean() < 0.9


def test_log_loss_gradient_is_not_zero_at_a_gap_of_200() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    case = Case(logits, torch.ones(2, 1), torch.ones(2, 1), torch.tensor([0, 0]))
    (gradient,) = torch.autograd.grad(objectives.log_loss(case.probe()).sum(), logits)
    expected = torch.tensor(
        [[-1.0, 1.0], [-1 / 200, 1 / 200]]
    )  # ∂ log softplus(g)/∂g: 1 as g → −∞, 1/g as g → ∞
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=0)
