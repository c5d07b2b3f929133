"""Crops and mirror images: the windows of the reflected image, each example by its own numbers."""

import pytest
import torch
from jaxtyping import config
from torch import Tensor
from torch.nn import functional as F

from uncannyvalley import InputError
from uncannyvalley.attacks.streams import Streams
from uncannyvalley.train.augmentation import Augmentation


def images(count: int = 12) -> Tensor:
    return torch.rand(count, 3, 6, 7, generator=torch.Generator().manual_seed(0))


def draws(ids: list[int], epoch: int = 0) -> Streams:
    return Streams(1, ids, restart=epoch, step=0)


def windows(image: Tensor, pad: int, mirror: bool) -> list[Tensor]:
    """All that may come out, cut one by one from torch's own padding."""
    padded = F.pad(image[None], (pad, pad, pad, pad), mode="reflect")[0]
    high, wide = image.shape[1:]
    cut = [padded[:, i : i + high, j : j + wide] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
    return cut + [one.flip(2) for one in cut] if mirror else cut


@pytest.mark.parametrize(("pad", "mirror"), [(2, False), (0, True), (3, True), (5, True)])
def test_each_image_becomes_a_window_of_its_reflection(pad: int, mirror: bool) -> None:
    x = images()
    found = Augmentation(pad, mirror).apply(x, draws(list(range(12))))
    assert found.shape == x.shape
    for one, image in zip(found, x, strict=True):
        assert any(torch.equal(one, window) for window in windows(image, pad, mirror))
    assert not torch.equal(found, x)


def test_all_windows_are_equally_likely() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    count = 9 * 2 * 300
    found = Augmentation(1, True).apply(image.expand(count, 1, 3, 3) / 9, draws(list(range(count))))
    kinds, times = torch.unique(found.flatten(1), dim=0, return_counts=True)
    shares = dict(zip(map(tuple, kinds.tolist()), times.tolist(), strict=True))
    expected: dict[tuple[float, ...], int] = {}
    for window in windows(image[0] / 9, 1, True):
        key = tuple(window.flatten().tolist())
        expected[key] = expected.get(key, 0) + 300
    assert shares.keys() == expected.keys()
    chi_squared = sum((shares[key] - wanted) ** 2 / wanted for key, wanted in expected.items())
    assert chi_squared < 45  # 17 degrees of freedom, p = 2e-4


def test_an_image_is_seen_the_same_in_any_batch() -> None:
    x, augmentation = images(), Augmentation(2, True)
    ids = list(range(100, 112))
    together = augmentation.apply(x, draws(ids))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    shuffled = augmentation.apply(x[order], draws([ids[i] for i in order]))
    assert torch.equal(shuffled, together[order])
    alone = augmentation.apply(x[4:5], draws(ids[4:5]))
    assert torch.equal(alone, together[4:5])
    assert not torch.equal(augmentation.apply(x, draws(ids, epoch=1)), together)


def test_mirroring_leaves_the_crops_as_they_were() -> None:
    x, ids = images(), list(range(12))
    cropped = Augmentation(2).apply(x, draws(ids))
    both = Augmentation(2, True).apply(x, draws(ids))
    mirrored = [torch.equal(one, other.flip(2)) for one, other in zip(both, cropped, strict=True)]
    kept = [torch.equal(one, other) for one, other in zip(both, cropped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 0 < sum(mirrored) < 12


def test_nothing_switched_on_is_the_image_itself() -> None:
    x = images()
    assert not Augmentation()
    assert Augmentation().apply(x, draws(list(range(12)))) is x


def test_number_type_and_values_are_kept() -> None:
    x = images().double()
    found = Augmentation(2, True).apply(x, draws(list(range(12))))
    assert found.dtype == torch.float64
    assert set(found.flatten().tolist()) <= set(x.flatten().tolist())


def test_what_cannot_be() -> None:
    config.update("jaxtyping_disable", True)  # as users run it
    try:
        for pad in (-1, 1.5, True, "2"):
            with pytest.raises(InputError, match="pad must be a whole number of at least 0"):
                Augmentation(pad)
        with pytest.raises(InputError, match="mirror is true or false, got 'yes'"):
            Augmentation(1, "yes")
        with pytest.raises(
            InputError, match=r"pad=6 takes images .* of more than 6 pixels a side, got shape"
        ):
            Augmentation(6).apply(images(), draws(list(range(12))))
        with pytest.raises(InputError, match=r"got shape \(12, 126\); choose a smaller pad, or none"):
            Augmentation(1).apply(images().flatten(1), draws(list(range(12))))
    finally:
        config.update("jaxtyping_disable", False)
