"""Small changes of an image that leave its class alone: how a network answers to them tells a pushed input apart.

All are differentiable in the image (rounding passes its gradient straight through), so that an attacker who knows the
detector can follow them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from uncannyvalley.errors import InputError, unknown_name

Change = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]

BLUR_SIGMA = 0.4
"""Pixels: light enough that a network's prediction on clean images hardly moves."""

STRONG_BLUR_SIGMA = 0.5

NOISE_SIGMA = 0.02
"""Five grey levels of 255."""

LEVELS = 8
"""Grey levels of the coarse image: 3 bits, as in feature squeezing (Xu et al. 2018, arXiv 1704.01155)."""

JOIN = "+"
"""Between the names of changes that are made one after the other: ``mirror+blur``."""


def mirror(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The mirror image, left and right exchanged."""
    return x.flip(3)


def shifted(x: Float[Tensor, "n c h w"], down: int, right: int) -> Float[Tensor, "n c h w"]:
    """The image moved by at most one pixel; the border repeats itself."""
    height, width = x.shape[2:]
    padded = functional.pad(x, (1, 1, 1, 1), "replicate")
    return padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def half_shift(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The image moved by half a pixel down and right: each pixel is the mean of a 2 by 2 square."""
    return functional.avg_pool2d(functional.pad(x, (0, 1, 0, 1), "replicate"), 2, stride=1)


def blurred(x: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """A Gaussian blur of ``sigma`` pixels, row by row and column by column."""
    reach = min(int(3 * sigma + 1), *(side - 1 for side in x.shape[2:]))
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-offsets.square() / (2 * sigma**2), dim=0)
    channels = x.shape[1]
    padded = functional.pad(x, (reach, reach, reach, reach), "reflect")
    rows = functional.conv2d(padded, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return functional.conv2d(rows, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def median(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The median of each 3 by 3 square."""
    padded = functional.pad(x, (1, 1, 1, 1), "reflect")
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(dim=4).values


def quantised(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """``LEVELS`` grey levels; the gradient is that of the image itself."""
    rounded = (x * (LEVELS - 1)).round() / (LEVELS - 1)
    return x + (rounded - x).detach()


@dataclass(frozen=True)
class Noise:
    """The same Gaussian noise on every image, drawn once from a seed: a row's answer depends on that row alone."""

    seed: int
    sigma: float = NOISE_SIGMA

    def __call__(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        draw = torch.Generator().manual_seed(self.seed)
        pattern = torch.randn(x.shape[1:], generator=draw, dtype=torch.float32)
        return (x + self.sigma * pattern.to(x)).clamp(0, 1)


_PLAIN: dict[str, Change] = {
    "mirror": mirror,
    "left": lambda x: shifted(x, 0, -1),
    "right": lambda x: shifted(x, 0, 1),
    "up": lambda x: shifted(x, -1, 0),
    "down": lambda x: shifted(x, 1, 0),
    "diagonal": lambda x: shifted(x, -1, -1),
    "half_shift": half_shift,
    "blur": lambda x: blurred(x, BLUR_SIGMA),
    "strong_blur": lambda x: blurred(x, STRONG_BLUR_SIGMA),
    "median": median,
    "quantised": quantised,
}

NOISE = "noise"
_DRAW = re.compile("[2-9]|[1-9][0-9]{1,3}")


def available() -> tuple[str, ...]:
    """Names of the changes; ``noise2``, ``noise3`` … are further draws, and ``A+B`` is B after A."""
    return (*_PLAIN, NOISE)


def is_change(name: str) -> bool:
    """Whether ``name`` names a change, or several one after the other."""
    return all(part in _PLAIN or _draw(part) is not None for part in name.split(JOIN))


def change(name: str, seed: int = 0) -> Change:
    """The change of that name, its noise drawn from ``seed``.

    Raises InputError for unknown names; the change itself for images that are not (n, c, h, w) of 3 by 3 pixels or more.
    """
    parts: list[Change] = []
    for part in name.split(JOIN):
        draw = _draw(part)
        if part not in _PLAIN and draw is None:
            raise unknown_name("change of an image", part, available())
        parts.append(_PLAIN[part] if draw is None else Noise(seed + 1_000_003 * draw))

    def apply(x: Tensor) -> Tensor:
        check_sides(x)
        for part in parts:
            x = part(x)
        return x

    return apply


def check_sides(x: Tensor) -> None:
    """InputError unless ``x`` is (n, c, h, w) of 3 by 3 pixels or more."""
    if x.dim() != 4 or min(x.shape[2:]) < 3:
        raise InputError(
            f"small changes and grain are of images (n, channels, height, width) of at least 3 by 3 pixels; got shape "
            f"{tuple(x.shape)}; a detector with budget=1 needs none"
        )


def _draw(part: str) -> int | None:
    """Which draw of the noise ``part`` names, from 0; None if it names none."""
    number = part.removeprefix(NOISE)
    if part == NOISE:
        return 0
    return int(number) - 1 if part.startswith(NOISE) and _DRAW.fullmatch(number) else None
