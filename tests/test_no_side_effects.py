"""After any call, failed ones too, the user's network and torch's own state are as they were."""

import contextlib

import pytest
import torch
from torch import Tensor, nn

import uncannyvalley as uv


def state_of(net: nn.Module) -> dict:
    return {
        "modes": [module.training for module in net.modules()],
        "numbers": {name: value.clone() for name, value in net.state_dict().items()},
        "versions": [value._version for value in net.state_dict(keep_vars=True).values()],
        "grads": [parameter.grad for parameter in net.parameters()],
        "asks": [parameter.requires_grad for parameter in net.parameters()],
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()
        ],
        "types": [(value.dtype, value.device, value.stride()) for value in net.state_dict().values()],
        "random": torch.get_rng_state(),
        "modules": [id(module) for module in net.modules()],
    }


def assert_same(before: dict, after: dict) -> None:
    assert before.keys() == after.keys()
    for name in before.keys() - {"numbers", "random"}:
        assert before[name] == after[name], name
    assert torch.equal(before["random"], after["random"])
    for name, value in before["numbers"].items():
        assert torch.equal(value, after["numbers"][name]), name


def attack():
    return uv.attacks.pgd(eps=0.1, step_size=0.03, random_start=True)


CALLS = {
    "split": lambda net, x, y: uv.split(net, x),
    "record": lambda net, x, y: uv.record(net, x, y, attack(), steps=2),
    "diagnose": lambda net, x, y: uv.diagnose(net, x, y),
    "labels out of range": lambda net, x, y: uv.record(net, x, y + 9, attack(), steps=2),
    "images out of range": lambda net, x, y: uv.record(net, x + 1, y, attack(), steps=2),
    "unknown head": lambda net, x, y: uv.split(net, x, head="nowhere"),
    "unknown measure": lambda net, x, y: uv.record(net, x, y, attack(), steps=2, measures=["sharp"]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_the_network_is_as_it_was(call, small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> None:
    small_net[0].weight.requires_grad_(False)
    seen: list[int] = []
    small_net[2].register_forward_hook(lambda *_: seen.append(1))
    before = state_of(small_net)
    with contextlib.suppress(uv.InputError):
        call(small_net, *small_images)
    assert_same(before, state_of(small_net))


def test_user_hooks_do_not_fire_while_recording(
    small_net: nn.Module, small_images: tuple[Tensor, Tensor]
) -> None:
    model = uv.split(small_net, small_images[0])
    seen: list[int] = []
    small_net[2].register_forward_hook(lambda *_: seen.append(1))
    uv.record(model, *small_images, attack(), steps=2)
    assert not seen


def test_images_and_labels_are_not_written(small_net: nn.Module, small_images: tuple[Tensor, Tensor]) -> None:
    x, y = small_images
    x_before, y_before = x.clone(), y.clone()
    uv.record(small_net, x, y, attack(), steps=3)
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)


def test_a_network_of_an_odd_kind_stays_too(small_images: tuple[Tensor, Tensor]) -> None:
    """Gradients that the user had are kept, and autograd's mode is as it was."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    net(small_images[0]).sum().backward()
    gradient = net[1].weight.grad.clone()
    with torch.no_grad():
        uv.record(net, *small_images, attack(), steps=2)
        assert not torch.is_grad_enabled()
    assert torch.equal(net[1].weight.grad, gradient)
