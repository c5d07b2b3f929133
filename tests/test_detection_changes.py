"""Small changes of an image against numpy and scipy: values, slopes, names."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detection_oracles import TWINS
from uncannyvalley import InputError
from uncannyvalley.detect.changes import Noise, available, change, is_change

SHAPES = [(2, 1, 3, 3), (1, 3, 3, 5), (3, 1, 28, 28), (2, 3, 32, 32), (1, 3, 64, 17), (1, 1, 64, 64)]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_change_has_a_twin() -> None:
    assert {*TWINS, "noise"} == set(available())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TWINS)
def test_changes_are_their_twins(name: str, shape: tuple[int, ...]) -> None:
    x = images(*shape)
    found = change(name)(x)
    assert found.shape == x.shape
    np.testing.assert_allclose(found.numpy(), TWINS[name](x.numpy()), atol=1e-12)


def test_a_blur_keeps_what_is_even() -> None:
    """Its kernel sums to 1, and it is the kernel: an impulse far from the border comes back as it."""
    impulse = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    impulse[0, 0, 4, 4] = 1
    spread = change("blur")(impulse)
    assert spread.sum().item() == pytest.approx(1, abs=1e-12)
    assert (spread[0, 0, 4, 5] / spread[0, 0, 4, 4]).item() == pytest.approx(math.exp(-1 / (2 * 0.4**2)))
    for name in (*TWINS, "noise"):
        even = torch.full((1, 2, 5, 5), 3 / 7, dtype=torch.float64)
        if name != "noise":
            torch.testing.assert_close(change(name)(even), even)


def test_names_in_a_row_are_made_in_their_order() -> None:
    x = images(2, 1, 6, 7)
    for first, second in (("median", "left"), ("quantised", "blur"), ("left", "mirror")):
        both = change(f"{first}+{second}")(x)
        torch.testing.assert_close(both, change(second)(change(first)(x)))
        assert not torch.allclose(both, change(f"{second}+{first}")(x))


def test_noise_is_one_pattern_for_all_rows_and_batches() -> None:
    x = images(5, 3, 8, 8).mul(0.5).add(0.25)
    patterns = {}
    for name in ("noise", "noise2", "noise3"):
        apart = change(name, seed=4)(x) - x
        torch.testing.assert_close(apart, apart[:1].expand_as(apart))
        for i in range(5):
            torch.testing.assert_close(change(name, seed=4)(x[i : i + 1]), (x + apart)[i : i + 1])
        assert apart.std().item() == pytest.approx(0.02, rel=0.2)
        patterns[name] = apart[0]
    assert not torch.allclose(patterns["noise"], patterns["noise2"])
    assert not torch.allclose(patterns["noise2"], patterns["noise3"])
    assert not torch.allclose(change("noise", seed=5)(x) - x, patterns["noise"].expand_as(x))
    assert torch.equal(change("noise", seed=4)(x), Noise(4)(x))
    assert change("noise", seed=4)(torch.ones(1, 1, 9, 9)).max() <= 1


def test_noise_leaves_the_global_draws_alone() -> None:
    before = torch.get_rng_state()
    change("noise")(images(1, 1, 4, 4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [*TWINS, "noise", "mirror+strong_blur"])
def test_changes_have_the_gradient_that_they_have(name: str) -> None:
    """Of a random linear function; the coarse image passes it straight through."""
    x, weights = images(1, 2, 5, 6).mul(0.8).add(0.1).requires_grad_(), images(1, 2, 5, 6, seed=1)
    (slope,) = torch.autograd.grad((change(name)(x) * weights).sum(), x)
    if name == "quantised":
        assert torch.equal(slope, weights)
        return
    way = images(1, 2, 5, 6, seed=2)
    ahead, behind = (change(name)(x.detach() + step * way) for step in (1e-6, -1e-6))
    assert (slope * way).sum().item() == pytest.approx(
        ((ahead - behind) * weights).sum().item() / 2e-6, rel=1e-5
    )


@pytest.mark.parametrize(
    "name", ["", "+", "mirror+", "noise0", "noise1", "noise²", "noise02", "noise-2", "Mirror", "blur 2"]
)
def test_names_that_are_no_change(name: str) -> None:
    assert not is_change(name)
    with pytest.raises(InputError, match="unknown change of an image"):
        change(name)


@pytest.mark.parametrize("shape", [(2, 1, 2, 5), (2, 1, 5, 2), (4, 9), (3, 5, 5)])
def test_images_too_small_or_none(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least 3 by 3 pixels"):
        change("mirror")(torch.rand(shape))
