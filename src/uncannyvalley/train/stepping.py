"""One step of training: the module that the engine wraps, the optimizer, and its schedule."""

from collections.abc import Iterable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from uncannyvalley.train.live import LiveNetwork
from uncannyvalley.train.objectives import Loss, Objective
from uncannyvalley.train.recipe import Recipe
from uncannyvalley.types import Draws


class TrainingStep(nn.Module):
    """(x, y, draws) → Loss. However many forwards an objective takes inside, for data parallelism it is one."""

    def __init__(self, net: nn.Module, head_name: str, objective: Objective) -> None:
        super().__init__()
        self.network = LiveNetwork(net, head_name)
        self._loss = objective.loss

    def forward(self, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], draws: Draws) -> Loss:
        return self._loss(self.network, x, y, draws)


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> optim.Optimizer:
    """Nesterov's SGD or AdamW over the parameters that learn."""
    learning = [one for one in parameters if one.requires_grad]
    if recipe.optimizer == "adamw":
        return optim.AdamW(learning, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return optim.SGD(
        learning, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
    )  # fmt: skip


def schedule_state(schedule: LRScheduler) -> dict[str, Any]:
    """Where a schedule is. What it is made of stays out: not all of that survives being written as text."""
    state = schedule.state_dict()
    return {name: state[name] for name in ("last_epoch", "_step_count", "_last_lr")}


def make_schedule(optimizer: optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The learning rate over all steps, as the recipe has it."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimizer, max_lr=recipe.learning_rate, total_steps=steps, cycle_momentum=False)
    if recipe.schedule == "piecewise":
        return MultiStepLR(optimizer, milestones=[steps // 2, 3 * steps // 4], gamma=0.1)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)
