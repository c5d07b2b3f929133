"""Networks that are built to be 1-Lipschitz: where certificates mean something."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import data

STUDIES = Path(__file__).resolve().parents[1] / "studies"


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A GroupSort network with spectrally normalised layers, trained on digits, and test images that it gets right."""
    from deel import torchlip

    sys.path.insert(0, str(STUDIES))
    try:
        from small_lipschitz import train
    finally:
        sys.path.pop(0)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(),
        torchlip.SpectralLinear(64, 64), torchlip.GroupSort2(),
        torchlip.SpectralLinear(64, 64), torchlip.GroupSort2(),
        nn.Linear(64, 10),
    )  # fmt: skip
    known, tests = data.digits("train"), data.digits("test")
    train(net, known[:], known.labels, epochs=20, wanted=1.0)
    net.eval()
    with torch.no_grad():
        correct = net(tests[:]).argmax(dim=1) == tests.labels
    assert correct.double().mean() > 0.85  # it learnt something
    return net, tests[:][correct][:64], tests.labels[correct][:64]


def test_the_constant_of_a_1_lipschitz_network_is_1(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, _ = trained
    constant = uv.lipschitz_bound(net, x)
    assert constant.status == "certified"
    assert constant.value == pytest.approx(1.0, abs=0.02)
    assert uv.sampled_lipschitz(net, x).value <= constant.value


def test_certificates_see_a_third_of_what_an_attack_needs(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = trained
    certified, attacked = uv.certify(net, x, y).value, uv.attacked_radius(net, x, y, steps=20).value
    assert (certified > 0).all()
    assert (certified <= attacked).all()
    assert (certified / attacked).median() >= 0.3


def test_the_attack_comes_close_on_a_linear_network() -> None:
    """Where the distance to the boundary is known, the attacked radius is it, from above."""
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().eval()
    x = 0.5 + 0.05 * torch.randn(20, 1, 4, 4, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        net[1].bias -= net[1](x.flatten(1)).mean(dim=0)  # boundaries near the images
        y = net(x).argmax(dim=1)
    exact, attacked = uv.certify(net, x, y).value, uv.attacked_radius(net, x, y).value
    assert (attacked >= exact * (1 - 1e-9)).all()
    assert (attacked / exact).median() < 1.05


def test_misclassified_images_have_an_attacked_radius_of_0(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = trained
    assert (uv.attacked_radius(net, x[:4], (y[:4] + 1) % 10, steps=2).value == 0).all()
