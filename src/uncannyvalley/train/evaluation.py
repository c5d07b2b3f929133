"""How well a network does that is being trained: on validation images as they are, and under attack."""

from dataclasses import dataclass

import torch
from torch import nn

from uncannyvalley.attacks.gradient import pgd
from uncannyvalley.data.images import Images
from uncannyvalley.recording import choose_batch_size, record_batch, trajectory_columns
from uncannyvalley.splitting import SplitModel, split
from uncannyvalley.train.perturbing import step_size_of
from uncannyvalley.train.recipe import Recipe
from uncannyvalley.walking import Recording


@dataclass(frozen=True)
class Accuracies:
    """Shares of the validation images.

    clean   classified correctly as they are
    robust  classified correctly as they are and at each recorded iterate of the attack; None without an attack
    """

    clean: float
    robust: float | None


def evaluate(net: nn.Module, images: Images, recipe: Recipe) -> Accuracies:
    """Accuracies of ``net``, in evaluation mode with plain heads, by the attack of ``recipe``.

    The network is split once; the attack is recorded with no measure but the distances. A network whose gradient is
    exactly zero, which ``record`` refuses, is judged by the clean images: early in a training that happens.
    """
    model = split(net, images[:1])
    size = choose_batch_size(model, None)
    batches = [slice(first, min(first + size, len(images))) for first in range(0, len(images), size)]
    if recipe.eps is None:
        with torch.no_grad():
            right = sum(_right(model, images, rows) for rows in batches)
        return Accuracies(right / len(images), None)
    clean = robust = 0
    for rows in batches:
        as_they_are, throughout = _attacked(model, images, rows, recipe, recipe.eps)
        clean += as_they_are
        robust += throughout
    return Accuracies(clean / len(images), robust / len(images))


def _right(model: SplitModel, images: Images, rows: slice) -> int:
    logits = model(model.place(images[rows]))
    return int((logits.argmax(dim=1).cpu() == images.labels[rows]).sum())


def _attacked(model: SplitModel, images: Images, rows: slice, recipe: Recipe, eps: float) -> tuple[int, int]:
    """Images of a batch that are right as they are, and that stay right."""
    step_size = step_size_of(eps, recipe.attack_steps)
    attack = pgd(recipe.norm, eps=eps, step_size=step_size, random_start=recipe.random_start)
    recording = Recording(recipe.attack_steps, (), recipe.seed)
    schema = trajectory_columns(recording, model, attack)
    ids = range(rows.start, rows.stop)
    x, y = images[rows], images.labels[rows]
    table = record_batch(model, x, y, ids, attack, recording, run=attack.name, schema=schema)
    wrong = table["adversarial"].to_numpy(zero_copy_only=False).reshape(len(ids), -1)
    return int((~wrong[:, 0]).sum()), int((~wrong.any(axis=1)).sum())
