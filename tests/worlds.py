"""Worlds whose answer is known, images to start from, and the walks of attacks among them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import measures
from uncannyvalley.probe import Prober
from uncannyvalley.types import Attack
from uncannyvalley.walking import Recording, walk

NORMS = ("linf", "l2")
PIXELS = 16
CHEAP = ["loss"]


def linear_world(classes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Logits that are linear in the pixels, with all boundaries near the grey image."""
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, classes)).to(dtype).eval()
    weight = torch.randn(classes, PIXELS, generator=draw, dtype=dtype)
    with torch.no_grad():
        net[1].weight.copy_(weight)
        net[1].bias.copy_(-0.5 * weight.sum(dim=1))
    return net


def curved_world(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small network with a hidden layer, five classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 24), nn.Tanh(), nn.Linear(24, 5)).to(dtype).eval()


def grey_images(count: int, spread: float = 0.1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images (n, 1, 4, 4) within ``spread`` of ½: far from the walls of [0, 1]."""
    draw = torch.Generator().manual_seed(seed)
    return 0.5 + spread * (2 * torch.rand(count, 1, 4, 4, generator=draw, dtype=dtype) - 1)


def cornered_images(count: int) -> Tensor:
    """Images with many pixels at 0 and at 1."""
    draw = torch.Generator().manual_seed(1)
    return (2 * torch.rand(count, 1, 4, 4, generator=draw, dtype=torch.float64) - 0.5).clamp(0, 1)


def predictions(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(dim=1)


def cross_entropy_gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def at_distance(net: nn.Module, x: Tensor, radius: float, norm: str) -> Tensor:
    """Images moved along the normal of a two-class linear world until their boundary is ``radius`` away."""
    normal = (net[1].weight[0] - net[1].weight[1]).detach()
    dual = normal.abs().sum() if norm == "linf" else normal.norm()
    with torch.no_grad():
        logits = net(x)
    difference = logits[:, 0] - logits[:, 1]
    missing = difference.sign() * radius * dual - difference
    return x + (missing[:, None] * normal / normal.square().sum()).view_as(x)


def iterates(
    net: nn.Module, x: Tensor, y: Tensor, attack: Attack, steps: int, target: Tensor | None = None
) -> list[Tensor]:
    """Every image of the walk, the clean ones first."""
    model = uv.split(net, x)
    prober = Prober(model, x, y, target, attack.objective, aims=attack.targeted)
    recording = Recording(steps, measures.resolve(CHEAP))
    return [probe.x for _, probe in walk(prober, attack, recording, range(len(x)), 0)]


def distances(x: Tensor, clean: Tensor, norm: str) -> Tensor:
    moved = (x - clean).flatten(1)
    return moved.abs().amax(dim=1) if norm == "linf" else moved.norm(dim=1)


def all_attacks(norm: str, random_start: bool) -> Iterator[Attack]:
    """Each attack with a step of a third of its radius."""
    for make in uv.attacks.ATTACKS.values():
        yield make(norm, eps=0.3, step_size=0.1, random_start=random_start)
