"""The loop: steps, epochs, looks at the validation images, and what is kept of them."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from uncannyvalley.attacks.streams import Streams
from uncannyvalley.errors import InputError
from uncannyvalley.prepare import detached_copy
from uncannyvalley.train.batches import Batch, TrainingImages, keyed, shares
from uncannyvalley.train.checkpoint import Checkpoint, load_weights_of, weights_of
from uncannyvalley.train.evaluation import Accuracies, evaluate
from uncannyvalley.train.fitted import Progress
from uncannyvalley.train.folder import TrainingFolder
from uncannyvalley.train.history import selected_row
from uncannyvalley.train.objectives import Loss, take_gradients
from uncannyvalley.train.preparing import Task
from uncannyvalley.train.stepping import TrainingStep, make_optimizer, make_schedule, schedule_state
from uncannyvalley.zoo.heads import plain_heads

ASYNCHRONOUS_STEPS = 16
"""Steps between two readings of the losses where reading them makes the device, or another process, wait."""

LOGGED_STEPS = 10
"""Steps between two entries of the engine's loggers."""

_CROPS, _ATTACK = 0, 1
"""Streams of one example in one epoch: what the augmentation draws, what the objective draws."""


@dataclass(frozen=True)
class Outcome:
    """Weights of the selected network, the rows of all epochs, and the seconds that it took."""

    weights: dict[str, Tensor]
    history: list[dict[str, Any]]
    seconds: float

    @property
    def best(self) -> dict[str, Any]:
        """The row of the selected network."""
        return dict(selected_row(self.history))


class Loop:
    """One training on this process; ``folder`` only where this process keeps it."""

    def __init__(
        self, fabric: Fabric, task: Task, folder: TrainingFolder | None, progress: Progress | None
    ) -> None:
        self._fabric, self._task, self._folder, self._progress = fabric, task, folder, progress
        self._recipe = recipe = task.recipe
        self._data = TrainingImages(task.images, task.rows, fabric.device, task.dtype)
        self._steps_per_epoch = len(task.rows) // recipe.batch_size
        self._steps = recipe.epochs * self._steps_per_epoch
        self._net = task.net
        self._done, self._seconds = 0, 0.0
        self._history: list[dict[str, Any]] = []
        self._sums: dict[str, float] = {}
        self._best: dict[str, Tensor] = {}
        self._pending: list[dict[str, Tensor]] = []
        self._unsaved = False
        alone = fabric.world_size == 1 and fabric.device.type == "cpu"
        self._read_every = 1 if alone else ASYNCHRONOUS_STEPS

    def run(self, begun: Checkpoint | None) -> Outcome:
        """Train from ``begun``, or from the first step, to the end."""
        self._set_up(begun)
        status = "failed"
        try:
            self._train()
            status = "success"
        finally:
            for logger in self._fabric.loggers:
                logger.finalize(status)
        if self._folder is not None:
            self._folder.save_network(self._selected())
            self._folder.log(self._history)
        weights = {name: one.cpu() for name, one in self._best.items()}
        return Outcome(weights, self._history, self._seconds)

    def _train(self) -> None:
        self._since = self._kept_at = time.monotonic()
        self._net.train()
        if self._done == self._steps:
            return
        while self._done < self._steps:
            self._train_epoch(self._done // self._steps_per_epoch)
        self._keep()

    def _set_up(self, begun: Checkpoint | None) -> None:
        step = TrainingStep(self._net, self._task.head_name, self._task.objective)
        if begun is not None:
            load_weights_of(self._net, begun.weights)
        # the number type first: an optimizer keeps the parameters that it is given
        module = self._fabric.setup_module(step)
        self._module: nn.Module = module
        optimizer = make_optimizer(self._net.parameters(), self._recipe)
        self._schedule = make_schedule(optimizer, self._recipe, self._steps)
        self._optimizer: Any = self._fabric.setup_optimizers(optimizer)
        if begun is None:
            return
        optimizer.load_state_dict(begun.optimizer)
        self._schedule.load_state_dict(begun.schedule)
        self._done, self._history, self._sums = begun.done, begun.history, begun.sums
        self._seconds = begun.seconds
        self._best = {name: one.to(self._fabric.device) for name, one in begun.best.items()}

    def _train_epoch(self, epoch: int) -> None:
        """What is left of an epoch, and its row."""
        order = self._data.order(self._recipe.seed, epoch)
        first = self._done % self._steps_per_epoch
        rank, world = self._fabric.global_rank, self._fabric.world_size
        for rows in shares(order, self._recipe.batch_size, rank, world, first):
            self._step(self._data.batch(rows), epoch)
            self._done += 1
            last = self._done % self._steps_per_epoch == 0
            if last or self._done % self._read_every == 0 or self._is_step_to_keep():
                self._read_losses()
                if last:
                    self._end_epoch(epoch)
                if self._done < self._steps and (self._is_step_to_keep() or self._is_time_to_keep()):
                    self._keep()

    def _step(self, batch: Batch, epoch: int) -> None:
        recipe = self._recipe
        _seed(keyed(recipe.seed, "step", self._done, self._fabric.global_rank), self._fabric.device)
        x = batch.x
        if recipe.augmentation:
            x = recipe.augmentation.apply(x, Streams(recipe.seed, batch.ids, epoch, _CROPS))

        def loss() -> Loss:
            return self._module(x, batch.y, Streams(recipe.seed, batch.ids, epoch, _ATTACK))

        if self._done > 0:
            self._schedule.step()
        found = take_gradients(self._task.objective, loss, self._fabric.backward, self._module)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(self._net.parameters(), recipe.clip)
        self._optimizer.step()
        self._pending.append({"total": found.total.detach(), **found.parts})

    def _read_losses(self) -> None:
        """Take in the losses of the steps since the last reading: means over all processes."""
        if not self._pending:
            return
        names = list(self._pending[0])
        table = torch.stack([torch.stack([one[name].double() for name in names]) for one in self._pending])
        if self._fabric.world_size > 1:
            reduced = self._fabric.all_reduce(table, reduce_op="mean")
            assert isinstance(reduced, Tensor)
            table = reduced
        first = self._done - len(self._pending) + 1
        self._pending = []
        losses: dict[str, float] = {}
        for step, row in enumerate(table.tolist(), start=first):
            losses = dict(zip(names, row, strict=True))
            self._check_finite(losses, step)
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            if self._fabric.loggers and step % LOGGED_STEPS == 0:
                self._fabric.log_dict({f"train/{name}": value for name, value in losses.items()}, step)
        if self._progress is not None and self._fabric.is_global_zero:
            self._progress(self._done, self._steps, losses)

    def _check_finite(self, losses: Mapping[str, float], step: int) -> None:
        bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            self._diverged(", ".join(bad), step)

    def _diverged(self, what: str, step: int) -> None:
        kept = "" if self._folder is None else "; the last checkpoint, from before, is kept"
        raise InputError(
            f"training diverged at step {step} of {self._steps}: {what} (learning rate "
            f"{self._rate:.3g}){kept}. Choose a smaller learning_rate than {self._recipe.learning_rate:g}, or give clip=1"
        )

    @property
    def _rate(self) -> float:
        return float(self._schedule.get_last_lr()[0])

    def _end_epoch(self, epoch: int) -> None:
        """The epoch's row, with a look at the validation images where one is due."""
        if self._fabric.is_global_zero:
            means = {name: value / self._steps_per_epoch for name, value in self._sums.items()}
            row: dict[str, Any] = {
                "epoch": epoch + 1,
                "step": self._done,
                "learning_rate": self._rate,
                **means,
            }
            due = (epoch + 1) % self._recipe.evaluate_every == 0 or epoch + 1 == self._recipe.epochs
            found = self._look() if due and self._task.validation is not None else None
            row |= {
                "clean_accuracy": None if found is None else found.clean,
                "robust_accuracy": None if found is None else found.robust,
            }
            row["selected"] = due and self._improves(row)
            if row["selected"]:
                self._best = _copies(self._net)
                self._unsaved = True
            self._history.append(row)
            if self._folder is not None:
                self._folder.log(self._history)
            if self._fabric.loggers:
                logged = {
                    f"epoch/{name}": one
                    for name, one in row.items()
                    if one is not None and name != "selected"
                }
                self._fabric.log_dict(logged, self._done)
        self._sums = {}
        if self._fabric.world_size > 1:
            self._fabric.barrier()

    def _look(self) -> Accuracies:
        self._check_weights()
        assert self._task.validation is not None
        # the look draws from streams of its own, and leaves the network in training mode
        return evaluate(plain_heads(self._net).eval(), self._task.validation, self._recipe)

    def _improves(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is better than every selected one before it."""
        before = [one for one in self._history if one["selected"]]
        if self._task.selection == "last" or not before:
            return True
        return _rank(row, self._task.selection) > _rank(before[-1], self._task.selection)

    def _is_step_to_keep(self) -> bool:
        every = self._recipe.checkpoint_steps
        return every is not None and self._done % every == 0

    def _is_time_to_keep(self) -> bool:
        every = self._recipe.checkpoint_every
        return every is not None and time.monotonic() - self._kept_at >= every

    def _keep(self) -> None:
        """Write a checkpoint, then the selected network if it is a new one."""
        now = time.monotonic()
        self._seconds += now - self._since
        self._since = now
        if self._folder is None:
            return
        self._check_weights()
        self._folder.keep(
            Checkpoint(
                self._task.key, self._done, weights_of(self._net), self._optimizer.state_dict(),
                schedule_state(self._schedule), self._history, self._sums, self._best, self._seconds,
            )
        )  # fmt: skip
        if self._unsaved:
            self._folder.save_network(self._selected())
            self._unsaved = False
        self._kept_at = time.monotonic()

    def _check_weights(self) -> None:
        """No network that is not finite is looked at or kept: its loss may be finite for one more step."""
        bad = [name for name, one in weights_of(self._net).items() if not torch.isfinite(one).all()]
        if bad:
            self._diverged(f"the weights of {bad[0]} are not finite", self._done)

    def _selected(self) -> nn.Module:
        """The selected network so far, in evaluation mode."""
        twin = detached_copy(self._net).eval()
        load_weights_of(twin, self._best)
        return twin


def _seed(seed: int, device: torch.device) -> None:
    """Seed what a network draws from. ``torch.manual_seed`` remembers each call for devices that are not in use."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def _copies(net: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in weights_of(net).items()}


def _rank(row: Mapping[str, Any], selection: str) -> tuple[float, float]:
    """What a row is selected by: one accuracy, then the other."""
    clean, robust = row["clean_accuracy"], row["robust_accuracy"]
    ranked = (robust, clean) if selection == "robust" else (clean, robust)
    first, second = (-1.0 if one is None else one for one in ranked)
    return first, second
