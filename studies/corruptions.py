"""Corruptions as walks: severity 0 (clean) to 5, what happens to an image that nobody pushes anywhere."""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, pad

from uncannyvalley import objectives
from uncannyvalley.types import Attack, Draws, Probe

NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
JPEG = (80, 65, 58, 50, 40)
"""Severities as those of CIFAR-10-C (Hendrycks and Dietterich 2019) for images of 32 x 32."""


def gaussian_noise(clean: Tensor, severity: int, draws: Draws) -> Tensor:
    return (clean + NOISE[severity] * draws.normal(clean.shape[1:])).clamp(0, 1)


def contrast(clean: Tensor, severity: int, draws: Draws) -> Tensor:
    mean = clean.mean(dim=(2, 3), keepdim=True)
    return ((clean - mean) * CONTRAST[severity] + mean).clamp(0, 1)


def blur(clean: Tensor, severity: int, draws: Draws) -> Tensor:
    """A Gaussian of width BLUR, at the edges by reflection."""
    offsets = torch.arange(-3, 4)
    weights = torch.exp(-offsets.square() / (2 * BLUR[severity] ** 2))
    kernel = (weights[:, None] * weights[None, :] / weights.sum().square()).expand(clean.shape[1], 1, 7, 7)
    return conv2d(pad(clean, (3, 3, 3, 3), mode="reflect"), kernel, groups=clean.shape[1]).clamp(0, 1)


def jpeg(clean: Tensor, severity: int, draws: Draws) -> Tensor:
    images = []
    for one in (clean * 255).round().byte().permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(one.squeeze()).save(buffer, "JPEG", quality=JPEG[severity])
        decoded = torch.from_numpy(np.array(Image.open(buffer))).float() / 255
        images.append(decoded.reshape(*clean.shape[2:], -1).permute(2, 0, 1))
    return torch.stack(images)


CORRUPTIONS: dict[str, Callable[[Tensor, int, Draws], Tensor]] = {
    "gaussian_noise": gaussian_noise, "blur": blur, "contrast": contrast, "jpeg": jpeg,
}  # fmt: skip


def corruption(name: str) -> Attack:
    """The walk of one corruption: step s is the clean image at severity s, five steps in all."""

    def step(probe: Probe, severity: int, prober: object, draws: Draws) -> tuple[Tensor, int]:
        x = CORRUPTIONS[name](probe.clean.contiguous(), severity, draws)
        return x.to(probe.x).contiguous(memory_format=torch.preserve_format), severity + 1

    settings = {"norm": "linf", "eps": 1.0, "step_size": 1.0, "random_start": False}
    return Attack(name, settings, objectives.log_loss, frozenset(), lambda *_: 0, step, max_steps=5)
