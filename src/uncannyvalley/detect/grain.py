"""How grainy an image is by itself, whatever a network says of it.

Photographs hold little noise of colour: their channels rise and fall together. Most attacks give each channel of each pixel
its own sign, and so do cameras in the dark, strong compression and scanners: grain tells that an image was pushed, not
by whom. An attacker who moves all channels alike is unseen by it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.detect.changes import check_sides
from uncannyvalley.types import Probe

GREY_LEVEL = 1 / 255
"""Unit of a difference: below it little is told."""

ROUNDING = 0.01
"""Grey levels that count as none: a grey image has grain 0 exactly, on every machine and in every batch."""


def grain(probe: Probe) -> Float[Tensor, "n"]:
    """Mean log(1 + |v(i,j) − v(i,j+1) − v(i+1,j) + v(i+1,j+1)|) of the colour v in grey levels: differences along both axes."""
    across = _colour(probe.x).diff(dim=3)
    return _mean_log(across.diff(dim=2))


def grain_across(probe: Probe) -> Float[Tensor, "n"]:
    """Mean log(1 + |v(i,j−1) − 2 v(i,j) + v(i,j+1)|): second differences along rows."""
    return _mean_log(_colour(probe.x).diff(n=2, dim=3))


def grain_down(probe: Probe) -> Float[Tensor, "n"]:
    """The same along columns."""
    return _mean_log(_colour(probe.x).diff(n=2, dim=2))


def _colour(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each pixel minus its mean over the channels; a grey image as it is."""
    check_sides(x)
    return x - x.mean(dim=1, keepdim=True) if x.shape[1] > 1 else x


def _mean_log(differences: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    levels = (differences.abs() / GREY_LEVEL - ROUNDING).clamp(min=0)
    return torch.log1p(levels).flatten(1).mean(dim=1).double()
