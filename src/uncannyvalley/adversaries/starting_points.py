"""Starting points of foolbox's decision-based attacks, image by image, so that none stops its batch."""

import traceback
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uncannyvalley.adversaries.adversary import Outcome
from uncannyvalley.adversaries.containment import library

BLENDING_STEPS = 50


def attack_from_starts(
    attack: Any,
    model: Any,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    eps: float | None,
    *,
    directions: int,
    other_images: bool,
) -> Outcome:
    """``attack`` of foolbox on the images that are classified correctly and have a starting point.

    The others come back as they are. Where the library fails on the batch, each image is attacked alone, and those
    on which it fails again come back as they are.
    """
    predicted = model(x).argmax(dim=1)
    images, fooled = x.clone(), predicted != y
    rows = (~fooled).nonzero().flatten()
    if len(rows) == 0:
        return Outcome(images, fooled)
    starts, found = blended_noise(model, x[rows], y[rows], directions)
    if other_images:
        starts, found = with_other_images(starts, found, x, y, predicted, rows)
    rows, starts = rows[found], starts[found]
    for which, result, success in _attacked(attack, model, x[rows], y[rows], eps, starts):
        images[rows[which]], fooled[rows[which]] = result, success
    return Outcome(images, fooled)


def blended_noise(
    model: Any, x: Float[Tensor, "n ..."], y: Int[Tensor, "n"], directions: int
) -> tuple[Float[Tensor, "n ..."], Bool[Tensor, "n"]]:
    """Images with just enough uniform noise to be misclassified, by foolbox, and whether they are."""
    foolbox = library("foolbox")
    attack = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(
        directions=directions, steps=BLENDING_STEPS
    )
    starts = attack.run(model, x, foolbox.criteria.Misclassification(y))
    return starts, model(starts).argmax(dim=1) != y


def with_other_images(
    starts: Float[Tensor, "m ..."],
    found: Bool[Tensor, "m"],
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    predicted: Int[Tensor, "n"],
    rows: Int[Tensor, "m"],
) -> tuple[Float[Tensor, "m ..."], Bool[Tensor, "m"]]:
    """The nearest image of another predicted class where no start was found yet.

    It needs no query, and exists also where all noise looks like one class.
    """
    starts, found = starts.clone(), found.clone()
    for place in (~found).nonzero().flatten().tolist():
        others = (predicted != y[rows[place]]).nonzero().flatten()
        if len(others):
            apart = (x[others] - x[rows[place]]).flatten(1).norm(dim=1)
            starts[place], found[place] = x[others[apart.argmin()]], True
    return starts, found


def _attacked(
    attack: Any, model: Any, x: Tensor, y: Tensor, eps: float | None, starts: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(rows, images, success) of the whole batch, or of each image alone where the whole failed."""
    every = torch.arange(len(x), device=x.device)
    if len(x) == 0:
        return []
    done = _attempt(attack, model, x, y, eps, starts)
    if done is not None:
        return [(every, *done)]
    alone = []
    for row in every.split(1):
        done = _attempt(attack, model, x[row], y[row], eps, starts[row])
        if done is not None:
            alone.append((row, *done))
    return alone


def _attempt(
    attack: Any, model: Any, x: Tensor, y: Tensor, eps: float | None, starts: Tensor
) -> tuple[Tensor, Tensor] | None:
    """None where foolbox finds that a point it holds for adversarial is none, which rounding can cause."""
    try:
        _, images, fooled = attack(model, x, y, epsilons=eps, starting_points=starts)
    except (ValueError, AssertionError) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        if "foolbox" not in Path(raised_in).parts:
            raise  # the network's own
        return None
    return images, fooled
