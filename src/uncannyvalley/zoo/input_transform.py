"""What stands between images in [0, 1] and a network: resizing, cropping, normalising, all differentiable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.find_head import tensor_of

INTERPOLATIONS = ("nearest-exact", "bilinear", "bicubic")
"""Ways to resize that torch can differentiate and that agree with Pillow's up to its rounding to bytes."""

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ((0.1307,), (0.3081,)),
    "none": ((), ()),
}
"""Mean and standard deviation of the training pixels in [0, 1], by channel."""


_ROUNDING = 2.5 / 255
"""How far a pipeline that rounds to bytes after each pass of a resize may lie from the exact transform."""


@dataclass(frozen=True)
class Resizing:
    """How images of any size become those of the network.

    size           (height, width), or the length of the shorter edge, the ratio of the edges kept; None: no resizing
    crop           (height, width) cut from the centre afterwards; None: no cropping
    interpolation  one of INTERPOLATIONS
    antialias      whether shrinking averages over all pixels, as Pillow does
    """

    size: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c height width"]:
        """Images in [0, 1] resized and cropped; values that bicubic weights push out of [0, 1] are cut off."""
        height, width = wanted = self._size_for(x.shape[-2], x.shape[-1])
        if (height, width) != (x.shape[-2], x.shape[-1]):
            x = self._resized(x, wanted)
        if self.crop is None:
            return x
        if height < self.crop[0] or width < self.crop[1]:
            raise InputError(
                f"images of {height} x {width} are smaller than the {self.crop[0]} x {self.crop[1]} pixels that "
                "the model crops from their centre; resize them first"
            )
        top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
        return x[..., top : top + self.crop[0], left : left + self.crop[1]]

    def _resized(
        self, x: Float[Tensor, "n c h w"], wanted: tuple[int, int]
    ) -> Float[Tensor, "n c height width"]:
        smooth = self.interpolation != "nearest-exact"
        wide = x if x.dtype == torch.float64 else x.float()  # torch has no such kernels for half precision
        resized = functional.interpolate(
            wide, wanted, mode=self.interpolation, antialias=self.antialias and smooth,
            align_corners=False if smooth else None,
        )  # fmt: skip
        return (resized.clamp(0, 1) if self.interpolation == "bicubic" else resized).to(x.dtype)

    def _size_for(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, int):
            short, long = sorted((height, width))
            longer = int(self.size * long / short)
            return (self.size, longer) if height <= width else (longer, self.size)
        return self.size or (height, width)


class InputTransform(nn.Module):
    """(resize(x) · scale − mean) / std, channel by channel, for images x (n, c, h, w) in [0, 1].

    Images with another number of channels are refused: broadcasting would repeat a grey channel silently.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        resizing: Resizing | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.channels, self.resizing, self.scale = channels, resizing or Resizing(), scale
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (0, 1, channels):
                raise InputError(
                    f"the {name} of the normalisation has {len(values)} values, the model takes images with "
                    f"{channels} channel{'s' if channels > 1 else ''}; name another normalisation, or none"
                )
            constants = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, constants, persistent=False)  # no weights of the network

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise InputError(
                f"the model takes images of shape (n, {self.channels}, height, width), got {tuple(x.shape)}; "
                "grey images are not repeated to three channels: take images with the model's channels"
            )
        x = self.resizing(x)
        if self.scale != 1:
            x = x * self.scale
        if self.mean.numel():
            x = x - self.mean
        return x / self.std if self.std.numel() else x

    def extra_repr(self) -> str:
        mean, std = (one.flatten().tolist() for one in (self.mean, self.std))
        return f"channels={self.channels}, mean={mean}, std={std}, scale={self.scale}, {self.resizing}"


class WithInputTransform(nn.Module):
    """Images in [0, 1] → the transform → the network → its logits, the very tensor that its head returned."""

    def __init__(self, transform: InputTransform, net: nn.Module) -> None:
        super().__init__()
        self.transform, self.net = transform, net

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n k"]:
        return tensor_of(self.net(self.transform(x)))


def prove_equal(transform: InputTransform, theirs: Callable[[np.ndarray], Tensor], what: str) -> None:
    """Raise InputError unless ``transform`` and a library's own pipeline make the same of two images.

    ``theirs`` maps bytes (h, w, c) to (1, c, height, width) or without the batch axis; ``what`` names it. They may
    differ by the rounding to bytes that pipelines do between their passes, and that has no derivative.
    """
    size = transform.resizing.size or transform.resizing.crop or (32, 32)
    height, width = (size, size) if isinstance(size, int) else size
    spread = transform.std.min().item() if transform.std.numel() else 1.0
    allowed = _ROUNDING * transform.scale / spread
    for shape in (
        (height + 5, 2 * width + 11),
        (2 * height + 7, width + 3),
    ):  # wide and high, of no size it knows
        # away from black and white, where Pillow cuts off between the two passes of a bicubic resize
        image = np.random.default_rng(0).integers(64, 192, (*shape, transform.channels), dtype=np.uint8)
        try:
            expected = theirs(image)
        except Exception as error:  # foreign code on an image that it may not have been made for
            raise InputError(
                f"{what} failed on an image of {shape[0]} x {shape[1]}: {type(error).__name__}: {error}"
            ) from error
        expected = expected if expected.dim() == 4 else expected[None]
        found = transform(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
        if found.shape != expected.shape or not (found - expected).abs().max().item() <= allowed:
            raise InputError(
                f"{what} does more than resizing, cropping the centre and normalising; do what it does in an "
                "nn.Module of your own and name that as path/to/file.py:callable"
            )
