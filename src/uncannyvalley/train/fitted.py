"""What training tells on its way, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from uncannyvalley.storing.places import Place

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with steps done, steps in all, and the losses of the last step."""


@dataclass(frozen=True)
class Fitted:
    """A trained network.

    network  the selected network, frozen, in evaluation mode, a cosine head in its plain form
    history  a row for each epoch: epoch, step, learning_rate, loss and its parts, and where it was looked at
             clean_accuracy, robust_accuracy (None without an attack), selected (whether it was the best so far)
    best     the row of the selected network
    path     its folder, or None
    key      of everything that decided its numbers
    seconds  that it took, those of earlier calls in the folder included
    """

    network: nn.Module
    history: tuple[dict[str, Any], ...]
    best: dict[str, Any]
    path: Place | None
    key: str
    seconds: float = 0.0
