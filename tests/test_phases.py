"""Phases of walks whose answer is known, and tables that say what they mean."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import uncannyvalley as uv
from made import made
from uncannyvalley import InputError
from uncannyvalley.analysis.phase_table import difference


def test_a_made_walk_has_its_known_phases() -> None:
    found = uv.phases(made([[1, 4, 6, 2, 0, -3]], [[False, False, True, True, True, True]]))
    assert found.flip_step[0] == 2
    assert found.ridge_step[0] == 2
    assert found.ridge_height[0] == 5
    assert found.valley_step[0] == 4
    assert found.depth[0] == 4
    assert (found.climb[0], found.descent[0], found.change[0]) == (5, -9, -4)
    assert found.descent_gini[0] == -9
    assert found.descent_norm[0] == found.descent_geometry[0] == 0


def test_walks_without_a_phase_have_none() -> None:
    found = uv.phases(made([[3, 2, 1]], [[False] * 3]))
    assert math.isnan(found.flip_step[0])
    assert math.isnan(found.valley_step[0])
    assert found.ridge_step[0] == 0
    assert found.records()[0]["flip_step"] is None


def test_below_clean_before_the_flip_is_no_valley() -> None:
    found = uv.phases(made([[3, 1, 5, 4, 2]], [[False, False, True, True, True]]))
    assert found.valley_step[0] == 4


def test_misclassified_examples_are_counted_apart() -> None:
    summary = uv.phases(made([[1, 2], [1, 0]], [[True, True], [False, True]])).summary()
    assert summary.walks[0].misclassified == 1
    assert summary.walks[0].examples == 1
    assert summary.walks[0].flipped.value == 1


def test_vanished_sharpness_does_not_become_nan() -> None:
    """log κ may be −inf; −inf minus −inf is no change."""
    found = uv.phases(made([[-np.inf, 2, -np.inf]], [[False, True, True]]))
    assert found.depth[0] == 0
    assert found.ridge_height[0] == np.inf
    assert np.array_equal(difference(np.array([-np.inf, 1.0]), np.array([-np.inf, 0.0])), [0.0, 1.0])


def test_walks_that_stopped_end_at_their_last_row() -> None:
    nan = math.nan
    found = uv.phases(made([[1, 5, nan, nan], [1, 2, 3, 0]], [[False, True, True, True]] * 2))
    assert found.steps.tolist() == [1, 3]
    assert found.depth.tolist() == [-4, 1]


def test_summary_prints_shares_and_survives_json() -> None:
    climbs = made([[0, 5, -4]] * 6 + [[0, 6, -2]] * 6, [[False, True, True]] * 12)
    calm = made([[0.0, 0.1, 0.0]] * 12, [[False] * 3] * 12, "noise")
    summary = uv.phases(climbs, [calm]).summary()
    assert [walk.name for walk in summary.walks] == ["pgd", "noise"]
    assert summary.walks[0].ridge.value == 1
    assert summary.walks[1].ridge.value == summary.walks[1].valley.value == 0
    assert summary.walks[0].depth.low <= 3 <= summary.walks[0].depth.high
    assert "depth, nats" in str(summary)
    plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert plain["walks"][1]["flip_step"]["value"] is None


def test_missing_measures_are_named(small_net: nn.Module, small_images) -> None:
    attack = uv.attacks.pgd(eps=0.1, step_size=0.1)
    trajectory = uv.record(small_net, *small_images, attack, steps=1, measures=["loss"])
    with pytest.raises(InputError, match="log_gini"):
        uv.phases(trajectory)


def test_shares_add_up_on_a_real_walk(small_net: nn.Module, small_images) -> None:
    attack = uv.attacks.pgd(eps=0.4, step_size=0.05)
    found = uv.phases(uv.record(small_net, *small_images, attack, steps=12))
    for change in ("climb", "descent", "change"):
        shares = sum(found.column(f"{change}_{share}") for share in ("gini", "norm", "geometry"))
        np.testing.assert_allclose(found.column(change), shares, atol=1e-6)
    np.testing.assert_allclose(found.climb + found.descent, found.change, atol=1e-9)


def test_a_two_layer_world_with_a_known_ridge() -> None:
    """One hidden unit h = relu(4x) and two classes with logits (0, s(h − 1)): everything is known in advance.

    With φ = (h, 1) the rows of W differ by (s, −s), so κ = |φ|² p(1−p) 2s², and the label flips where h = 1.
    """
    s = 8.0

    class World(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2, bias=False, dtype=torch.float64)
            with torch.no_grad():
                self.fc.weight.copy_(torch.tensor([[0.0, 0.0], [s, -s]]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(4 * x.flatten(1))
            return self.fc(torch.cat([hidden, torch.ones_like(hidden)], dim=1))

    x = torch.tensor([[[[0.053]]]], dtype=torch.float64)
    y = torch.tensor([0])
    step_size, steps = 0.0125, 40
    attack = uv.attacks.pgd(eps=0.5, step_size=step_size)
    found = uv.phases(uv.record(World().eval(), x, y, attack, steps=steps))
    h = 4 * (0.053 + step_size * np.arange(steps + 1))
    p = 1 / (1 + np.exp(-s * (h - 1)))
    kappa = (h**2 + 1) * p * (1 - p) * 2 * s**2
    assert found.flip_step[0] == np.argmax(h > 1)
    assert found.ridge_step[0] == np.argmax(kappa)
    assert found.valley_step[0] == np.argmax((h > 1) & (kappa < kappa[0]))
    np.testing.assert_allclose(found.ridge_height[0], np.log(kappa.max() / kappa[0]), atol=1e-9)
    np.testing.assert_allclose(found.depth[0], np.log(kappa[0] / kappa[-1]), atol=1e-9)
