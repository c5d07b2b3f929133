"""The score as something that an attacker can climb: its value, its slope in float64, and what a step along it does."""

import numpy as np
import pytest
import torch
from torch import nn

from detector_cases import INNER, REMEMBERING, WALKING, images, recipe
from uncannyvalley import ImageDetector
from uncannyvalley.detect.recipes import Recipe, recipe_of
from uncannyvalley.probe import Prober
from uncannyvalley.splitting import split
from uncannyvalley.types import OBJECTIVE_GRAD


def smooth() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(32, 4)
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [1, 4, 16, recipe("log_mahalanobis"), recipe("log_local_dimension"), recipe("turn@blur"), recipe("rise@left", "log_gini"),
     recipe("inner_sharpness@2"), recipe("class_sharpness_1", "log_odds@median")],
    ids=lambda one: getattr(one, "columns", [one])[0],
)  # fmt: skip
def test_the_slope_of_suspicion(kind: int | Recipe) -> None:
    """Against central differences in float64, along a random direction for each image."""
    settings = {"budget": kind} if isinstance(kind, int) else {"recipe": kind}
    found = ImageDetector(split(smooth(), images(8).double()), **settings).fit(
        images(150).double(), images(60, seed=1).double()
    )
    x = images(24, seed=2).double() * 0.6 + 0.2
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    prober = Prober(found.model, x, torch.zeros(24).long(), objective=found.suspicion)
    slope = prober(x, [OBJECTIVE_GRAD]).objective_grad
    assert slope is not None
    ahead, here, behind = (found.suspicion(prober(x + step * way)).detach() for step in (1e-7, 0, -1e-7))
    np.testing.assert_allclose(here.numpy(), -found.score_samples(x), atol=1e-9)
    numbers = ((ahead - behind) / 2e-7).numpy()
    exact = (slope * way).flatten(1).sum(dim=1).numpy()
    agree = np.isclose(numbers, exact, rtol=1e-4, atol=1e-5)
    assert agree.mean() > 0.9, (numbers, exact)  # a knot may lie between the two points
    assert (np.abs(exact) > 1e-6).mean() > 0.5


def test_suspicion_is_the_score(small_net: nn.Module) -> None:
    for kind in (recipe_of(4), WALKING, INNER, REMEMBERING):
        found = ImageDetector(small_net, recipe=kind).fit(images(120), images(60, seed=1))
        x = images(40, seed=2)
        labels = torch.randint(
            0, 4, (40,), generator=torch.Generator().manual_seed(0)
        )  # whoever attacks knows others
        probe = Prober(found.model, x, labels)(x)
        np.testing.assert_allclose(
            found.suspicion(probe).detach().numpy(), -found.score_samples(x), rtol=1e-3, atol=1e-3
        )


def test_an_attack_can_follow_it(small_net: nn.Module) -> None:
    """Ascent on suspicion raises it; the score of an attack on the network is what the detector says."""
    found = ImageDetector(small_net, budget=4).fit(images(150), images(60, seed=1))
    x = images(30, seed=2)
    prober = Prober(found.model, x, torch.zeros(30).long(), objective=found.suspicion)
    slope = prober(x, [OBJECTIVE_GRAD]).objective_grad
    assert slope is not None
    moved = (x + 0.01 * slope.sign()).clamp(0, 1)
    assert (found.score_samples(moved) < found.score_samples(x)).mean() > 0.8
