"""The network that an attack is given: it answers as the original does, whatever is done to it, and that one is untouched."""

import copy
import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import uncannyvalley as uv
from test_no_side_effects import assert_same, state_of
from truth import Noted, Scene, assert_holds_exactly, close, counted, measured_afresh, pgd

NAMES = ["log_relative_sharpness", "margin", "distance_linf"]


@pytest.fixture
def scene(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> Scene:
    return small_net, *small_images


class WithLogits(nn.Module):
    """An output with fields, and images by keyword."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor, scale: float = 1.0) -> SimpleNamespace:
        return SimpleNamespace(logits=self.net(pixel_values * scale), hidden=None)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_outputs_are_the_networks_own(mode, scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, NAMES, eps=0.1) as walk, mode():
        noted = Noted(walk.model)
        for rows in (x, x[:3] + 0.01, x[5:6] - 0.01):
            out = noted(rows, (rows[:, None] - x[None]).flatten(2).norm(dim=2).argmin(dim=1))
            assert torch.equal(out, net(rows))
            assert out.dtype == torch.float32
    assert counted(walk, matched=16)
    assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES)


def test_gradients_are_the_networks_own(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, eps=0.1) as walk:
        slopes = []
        for model in (walk.model, net):
            at = x.clone().requires_grad_()
            slopes.append(torch.autograd.grad(F.cross_entropy(model(at), y), at)[0])
    assert torch.equal(*slopes)
    assert counted(walk, matched=12)


def test_objects_with_logits_and_images_by_keyword(scene: Scene) -> None:
    net, x, y = WithLogits(scene[0]).eval(), scene[1], scene[2]
    with uv.observe(net, x, y, NAMES, eps=0.1) as walk:
        noted = Noted(lambda rows: walk.model(pixel_values=rows))
        assert isinstance(noted(x, torch.arange(12)), SimpleNamespace)
        assert torch.equal(noted(x[:5] + 0.01, torch.arange(5)).logits, net(x[:5] + 0.01).logits)
        pgd(walk.model, x, y, steps=2)
    assert counted(walk, matched=12 + 5 + 24)
    found = walk.trajectory.column("log_relative_sharpness")
    close(
        found[:, 0], measured_afresh(net, x, x, y, NAMES)["log_relative_sharpness"], "log_relative_sharpness"
    )


def test_images_by_keyword_behind_another_tensor(scene: Scene) -> None:
    class WithMask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = scene[0]

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.net(x if mask is None else x * mask)

    net, x, y = WithMask().eval(), *scene[1:]
    with uv.observe(net, x, y, NAMES, eps=0.1) as walk:
        walk.model(mask=torch.ones(12, 1, 1, 1), x=x)
    assert counted(walk, matched=12)


def test_an_attack_written_with_torch_func(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, NAMES, eps=0.1) as walk:
        slope = torch.func.grad(lambda at: F.cross_entropy(walk.model(at), y))(x)
    torch.testing.assert_close(slope, torch.func.grad(lambda at: F.cross_entropy(net(at), y))(x))


@pytest.mark.parametrize("prepare", [True, False])
def test_a_split_model_whose_network_is_gone(prepare: bool, scene: Scene) -> None:
    net, x, y = scene
    twin = copy.deepcopy(net)
    model = uv.split(twin, x, prepare=prepare)
    del twin
    gc.collect()
    assert model.source() is None
    with uv.observe(model, x, y, NAMES, eps=0.1) as walk:
        noted = Noted(walk.model)
        out = noted(x, torch.arange(12))
        noted(x[3:4] + 0.01, torch.tensor([3]))
    torch.testing.assert_close(out, net(x))
    assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES)


def test_an_attack_that_writes_into_its_tensors(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, NAMES, eps=0.1) as walk, torch.no_grad():
        noted = Noted(walk.model)
        at = x.clone()
        for _ in range(3):
            out = noted(at, torch.arange(12))
            out.zero_()
            at += 0.01
        at.fill_(torch.nan)
    assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES)


def misuse(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """What libraries do to the networks they attack."""
    model.train()
    model.zero_grad()
    model(x)
    copied = copy.deepcopy(model)
    copied.eval()
    copied(x)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    F.cross_entropy(model(x.clone().requires_grad_()), y).backward()
    torch.rand(3)


def test_an_attack_that_trains_clears_copies_and_runs_backward(scene: Scene) -> None:
    net, x, y = scene
    net(x).sum().backward()
    before, expected = state_of(net), net(x)
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    with torch.random.fork_rng(), uv.observe(net, x, y, eps=0.1) as walk:
        misuse(walk.model, x, y)
        assert torch.equal(walk.model(x), expected)
    assert_same(before, state_of(net))
    assert all(map(torch.equal, gradients, [parameter.grad for parameter in net.parameters()]))
    assert counted(walk, matched=48)
    loss = walk.trajectory.column("loss")
    np.testing.assert_array_equal(loss, np.tile(loss[:, :1], 4))


def test_an_attack_that_sets_modes_module_by_module(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, eps=0.1) as walk:
        for module in walk.model.modules():
            module.train()
        assert torch.equal(walk.model(x), net(x))


def test_no_trace_is_left_on_the_network(scene: Scene) -> None:
    net, x, y = scene
    net[0].weight.requires_grad_(False)
    seen: list[int] = []
    net[2].register_forward_hook(lambda *_: seen.append(1))
    before, images = state_of(net), x.clone()
    seen.clear()
    with uv.observe(net, x, y, ["loss", "input_gradient_norm", "log_trace@0"], eps=0.1) as walk:
        split_calls = len(seen)
        pgd(walk.model, x, y)
    _ = walk.trajectory
    assert_same(before, state_of(net))
    assert torch.equal(x, images)
    assert len(seen) == split_calls


def test_an_attack_that_raises_leaves_what_it_asked(scene: Scene) -> None:
    net, x, y = scene
    before = state_of(net)
    with pytest.raises(ZeroDivisionError), uv.observe(net, x, y, NAMES, eps=0.1) as walk:  # noqa: PT012
        noted = Noted(walk.model)
        noted(x, torch.arange(12))
        noted(x[2:4] + 0.01, torch.tensor([2, 3]))
        _ = 1 / 0
    assert_same(before, state_of(net))
    assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES)


def test_a_call_that_fails_inside_the_network_leaves_no_row(scene: Scene) -> None:
    net, x, y = scene
    with uv.observe(net, x, y, NAMES, eps=0.1) as walk:
        noted = Noted(walk.model)
        noted(x, torch.arange(12))
        with pytest.raises(RuntimeError):
            walk.model(torch.rand(12, 2, 6, 6))
        noted(x[:4] + 0.01, torch.arange(4))
    assert counted(walk, matched=16)
    assert_holds_exactly(walk.trajectory, noted, net, x, y, NAMES)
