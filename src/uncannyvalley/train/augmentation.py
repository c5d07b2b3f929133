"""Crops and mirror images on tensors, each example by its own random numbers: no batch or worker order matters."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from uncannyvalley.checks import check_count
from uncannyvalley.errors import InputError
from uncannyvalley.types import Draws

_DRAWS = torch.Size([3])
"""Numbers an example draws, whatever is switched on: the crop stays the same when mirroring is added."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image before the network sees it.

    pad     the image is extended by so many pixels of its own reflection on each side, and a window of the old size
            is cut at a uniformly drawn place; 0 for none
    mirror  whether left and right are exchanged, with probability ½
    """

    pad: int = 0
    mirror: bool = False

    def __post_init__(self) -> None:
        check_count("pad", self.pad, 0)
        if not isinstance(self.mirror, bool):
            raise InputError(f"mirror is true or false, got {self.mirror!r}")

    def __bool__(self) -> bool:
        return self.pad > 0 or self.mirror

    def apply(self, x: Float[Tensor, "n c h w"], draws: Draws) -> Float[Tensor, "n c h w"]:
        """The images as they are seen this time; x itself where nothing is switched on.

        Raises InputError for images without height and width, or not larger than ``pad``.
        """
        if not self:
            return x
        if x.dim() != 4 or min(x.shape[-2:]) <= self.pad:
            raise InputError(
                f"augmentation with pad={self.pad} takes images (n, channels, height, width) of more than {self.pad} "
                f"pixels a side, got shape {tuple(x.shape)}; choose a smaller pad, or none"
            )
        down, right, side = draws.uniform(_DRAWS).to(x.device, torch.float64).unbind(dim=1)
        rows = self._places(down, x.shape[-2])
        columns = self._places(right, x.shape[-1])
        if self.mirror:
            columns = torch.where((side < 0.5)[:, None], columns.flip(1), columns)
        images = torch.arange(len(x), device=x.device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        return x[images, channels, rows[:, None, :, None], columns[:, None, None, :]]

    def _places(self, drawn: Float[Tensor, "n"], size: int) -> Tensor:
        """Pixel numbers (n, size) along one side, reflected at the borders without repeating them."""
        shift = (drawn * (2 * self.pad + 1)).long() - self.pad
        places = (torch.arange(size, device=drawn.device) + shift[:, None]).abs()
        return (size - 1) - (size - 1 - places).abs()
