"""Replays under other heads: frames, smoothed fits and files, each against the network that has that head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import uncannyvalley as uv
from replay_cases import along, assert_same_columns, digits_world, remembered, with_head
from uncannyvalley.head import Head
from uncannyvalley.replaying.kept_walk import kept_walk
from uncannyvalley.replaying.other_heads import simplex_head
from uncannyvalley.replaying.replayed_walk import chosen_head
from uncannyvalley.replaying.smoothed import DECAY, SMOOTHING, smoothed_head


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    return digits_world(120)


@pytest.mark.parametrize(("head", "temperature"), [("etf", None), ("smoothed", None), ("etf", 2.0)])
def test_a_replay_is_the_network_with_that_head(
    digits: tuple[nn.Module, Tensor, Tensor], head: str, temperature: float | None
) -> None:
    net, x, y = digits
    path, recorded, model = remembered(net, x, y, eps=0.4, dtype=torch.float64)
    replayed = uv.replay(recorded, head=head, temperature=temperature, recorded_head=model)
    chosen = chosen_head(kept_walk(recorded, model), temperature, head)
    scale = 1.0 if temperature is None else temperature
    changed = Head(chosen.head.weight / scale, chosen.head.bias / scale)
    truth = along(path, with_head(net, lambda _: changed), x.double(), y)
    assert_same_columns(replayed, truth, atol=2e-5)
    assert replayed.about["replayed"] | {"left_out": {}} == {
        "temperature": scale,
        "head": head,
        "left_out": {},
    }
    clean = (replayed.column("adversarial")[:, 0] == 0).mean()
    assert clean > 0.9  # near enough to the recorded head to classify, and not the same
    assert np.abs(replayed.column("loss") - recorded.column("loss")).max() > 0.1


def test_a_frame_is_a_simplex_and_the_nearest_one() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    found = simplex_head(Head(weight, torch.arange(5.0))).weight
    gram = found @ found.T
    length = weight.square().sum() / 5
    wanted = length * (1.25 * torch.eye(5, dtype=torch.float64) - 0.25)
    torch.testing.assert_close(gram, wanted)
    nearest = (weight - found).square().sum()
    for seed in range(20):
        rotation = torch.linalg.qr(
            torch.randn(12, 12, generator=generator.manual_seed(seed), dtype=torch.float64)
        )[0]
        assert (weight - found @ rotation).square().sum() > nearest
    for row in range(12):  # and small turns in each plane take it away too
        turn = torch.zeros(12, 12, dtype=torch.float64)
        turn[row, (row + 1) % 12], turn[(row + 1) % 12, row] = 1e-2, -1e-2
        assert (weight - found @ torch.matrix_exp(turn)).square().sum() > nearest - 1e-9


def test_a_frame_of_a_frame_is_itself_and_fits_in_as_few_dimensions_as_can_be() -> None:
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    frame = simplex_head(Head(weight, None))
    torch.testing.assert_close(simplex_head(frame).weight, frame.weight)
    low, high = frame.log_geometry_band
    assert high - low < 1e-12
    assert np.exp(high) == pytest.approx(weight.square().sum().item() / 3)
    with pytest.raises(uv.InputError, match="at least 3 dimensions; these have 2"):
        simplex_head(Head(weight[:, :2], None))


def test_a_smoothed_head_is_the_minimum(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """The gradient of the loss that the docstring names, by autograd, vanishes there and nowhere near."""
    net, x, y = digits
    _, recorded, model = remembered(net, x, y, eps=0.4)
    features, labels = kept_walk(recorded, model).clean_features()
    found = smoothed_head(features, labels, 10)
    phi, scale = torch.from_numpy(features), np.square(features).sum(axis=1).mean()

    def objective(weight: Tensor, bias: Tensor) -> Tensor:
        fit = nn.functional.cross_entropy(
            phi @ weight.T + bias, torch.from_numpy(labels), label_smoothing=SMOOTHING
        )
        return fit + DECAY / 2 * scale * weight.square().sum()

    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    lowest = objective(weight, bias)
    slopes = torch.autograd.grad(lowest, (weight, bias))
    assert max(one.abs().max().item() for one in slopes) < 1e-4
    for seed in range(5):
        away = 0.05 * torch.randn(
            weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        assert objective(weight + away, bias) > lowest
    tenfold = smoothed_head(10 * features, labels, 10)
    torch.testing.assert_close(tenfold.weight * 10, found.weight, atol=1e-3, rtol=1e-3)


def test_a_smoothed_head_wants_images_of_each_class() -> None:
    features, labels = np.ones((40, 3)), np.repeat(np.arange(10), 4)
    with pytest.raises(uv.InputError, match=r"at least 5 images of each of the 10 classes; class 0 has 4"):
        smoothed_head(features, labels, 10)
    labels = np.repeat(np.arange(2), 20)
    with pytest.raises(uv.InputError, match="NaN"):
        smoothed_head(np.full((40, 3), np.nan), labels, 2)
    with pytest.raises(uv.InputError, match="all 0"):
        smoothed_head(np.zeros((40, 3)), labels, 2)


def test_features_that_separate_still_have_a_smoothed_head() -> None:
    """Without smoothing the weights would grow for ever."""
    features = np.repeat(np.eye(3), 10, axis=0)
    found = smoothed_head(features, np.repeat(np.arange(3), 10), 3)
    p = (torch.from_numpy(features) @ found.weight.T + found.bias).softmax(dim=1)
    assert p.max() < 1 - SMOOTHING / 2


@pytest.fixture
def walk(digits: tuple[nn.Module, Tensor, Tensor]) -> tuple[uv.Trajectory, uv.SplitModel]:
    net, x, y = digits
    _, recorded, model = remembered(net, x[:4], y[:4], eps=0.4)
    return recorded, model


def test_a_head_from_a_file(walk: tuple[uv.Trajectory, uv.SplitModel], tmp_path: Path) -> None:
    recorded, model = walk
    save_file(
        {"weight": model.head.weight.contiguous(), "bias": model.head.bias.contiguous()},
        tmp_path / "same.safetensors",
    )
    assert_same_columns(uv.replay(recorded, head=tmp_path / "same.safetensors"), recorded, atol=5e-5)
    save_file({"weight": model.head.weight.contiguous()}, tmp_path / "plain.safetensors")
    without = uv.replay(recorded, head=str(tmp_path / "plain.safetensors"))
    assert np.abs(without.column("loss") - recorded.column("loss")).max() > 1e-3


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(10, 7)}, r"shape \(10, 7\).*10 classes and features of \d+ dimensions"),
        ({"weight": torch.zeros(9, 32)}, r"shape \(9, 32\)"),
        ({"kernel": torch.zeros(10, 32)}, "must hold the tensors weight.*it holds kernel"),
        ({"weight": torch.zeros(10, 32), "bias": torch.zeros(3)}, r"bias of shape \(3,\)"),
        ({"weight": torch.full((10, 32), torch.nan)}, "finite"),
        ({"weight": torch.zeros(10, 32, dtype=torch.int64)}, "floating-point"),
    ],
)
def test_heads_that_do_not_fit(
    walk: tuple[uv.Trajectory, uv.SplitModel], tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    recorded, _ = walk
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(uv.InputError, match=message):
        uv.replay(recorded, head=tmp_path / "head.safetensors")


def test_names_and_files_that_are_no_heads(walk: tuple[uv.Trajectory, uv.SplitModel], tmp_path: Path) -> None:
    recorded, model = walk
    (tmp_path / "broken.safetensors").write_bytes(b"<script>alert(1)</script>")
    with pytest.raises(uv.InputError, match="cannot be read as a head"):
        uv.replay(recorded, head=tmp_path / "broken.safetensors")
    with pytest.raises(uv.InputError, match="cannot be read as a head"):
        uv.replay(recorded, head="missing.safetensors")
    with pytest.raises(uv.InputError, match="did you mean 'smoothed'"):
        uv.replay(recorded, head="smooth", recorded_head=model)
    with pytest.raises(uv.InputError, match="simplex frame needs the head"):
        uv.replay(recorded, head="etf")
