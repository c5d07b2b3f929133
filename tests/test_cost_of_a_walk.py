"""What a walk costs in passes of the network, and the rows that are kept."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import measures
from uncannyvalley.types import Attack
from worlds import CHEAP, curved_world, grey_images, predictions


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
