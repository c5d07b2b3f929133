"""Walks whose iterates are remembered, so that another network can be recorded along the very same path."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import uncannyvalley as uv
from uncannyvalley import data, zoo
from uncannyvalley.attacks import pgd
from uncannyvalley.head import Head
from uncannyvalley.objectives import log_loss
from uncannyvalley.trajectory import Trajectory
from uncannyvalley.types import Attack

STEPS = 12


class Path:
    """The iterates of one batch under an attack, step by step, and the attack that goes through them again."""

    def __init__(self, attack: Attack) -> None:
        self.points: list[Tensor] = []

        def step(*arguments: Any) -> tuple[Tensor, Any]:
            x, state = attack.step(*arguments)
            self.points.append(x.detach().clone())
            return x, state

        self.watched = attack._replace(step=step)

    def again(self) -> Attack:
        """The same points, whatever the network says."""

        def step(probe: Any, state: int, prober: Any, draws: Any) -> tuple[Tensor, int]:
            return self.points[state].to(probe.x.dtype), state + 1

        return Attack("pgd", {}, log_loss, frozenset(), lambda probe, draws: 0, step)


def along(
    path: Path, net: nn.Module, x: Tensor, y: Tensor, measures: Sequence[str] | None = None
) -> Trajectory:
    """What recording ``net`` at the points of ``path`` gives."""
    return uv.record(
        net, x, y, path.again(), steps=len(path.points), batch_size=len(x), measures=measures
    )  # fmt: skip


def digits_world(count: int = 60) -> tuple[nn.Module, Tensor, Tensor]:
    """The network of the demo and images of its test set, of which each class has a few."""
    images = data.load("digits")
    return zoo.load("demo"), images[:count], images.labels[:count]


def remembered(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    keep: str = "features",
    dtype: torch.dtype = torch.float32,
) -> tuple[Path, Trajectory, uv.SplitModel]:
    """A recorded PGD walk, its points, and the split that it was recorded with."""
    net, x = copy.deepcopy(net).to(dtype), x.to(dtype)
    model = uv.split(net, x[:4])
    path = Path(pgd(eps=eps, step_size=eps / 8))
    return path, uv.record(model, x, y, path.watched, steps=STEPS, batch_size=len(x), keep=keep), model


def with_head(net: nn.Module, change: Callable[[Head], Head]) -> nn.Module:
    """A float64 copy of ``net`` with another linear head."""
    twin = copy.deepcopy(net).double()
    linear = [one for one in twin.modules() if isinstance(one, nn.Linear)][-1]
    changed = change(Head(linear.weight.detach(), linear.bias.detach()))
    with torch.no_grad():
        linear.weight.copy_(changed.weight)
        linear.bias.copy_(torch.zeros_like(linear.bias) if changed.bias is None else changed.bias)
    return twin


def assert_same_columns(
    found: Trajectory, wanted: Trajectory, atol: float, leaving_out: Sequence[str] = ()
) -> None:
    """Every column of ``found`` but those is that of ``wanted``, to ``atol`` of values and of logarithms."""
    assert set(found.measures) >= {
        "loss",
        "log_loss",
        "log_relative_sharpness",
        "log_top_eigenvalue",
        "log_third_order",
    }
    for name in (*found.measures, "predicted", "adversarial", "label"):
        if name in leaving_out:
            continue
        np.testing.assert_allclose(
            found.column(name),
            wanted.column(name),
            rtol=atol,
            atol=atol if name != "loss" else 1e-15,
            err_msg=name,
        )
