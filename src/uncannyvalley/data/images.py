"""Labelled images as they were stored, floats in [0, 1] when they are looked at."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.checks import check_labels


@dataclass(frozen=True)
class Images:
    """Labelled images: ``pixels`` (n, c, h, w), bytes 0…255 or floats in [0, 1], and their classes."""

    pixels: np.ndarray
    labels: Int[Tensor, "n"]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Float[Tensor, "n c h w"]:
        """Some rows as float32 (float64 where stored so) in [0, 1]."""
        # rows of a file that is mapped into memory cannot be written to, which torch warns about
        pixels = torch.from_numpy(np.require(self.pixels[rows], requirements=("C", "W")))
        return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels

    def first(self, limit: int | None) -> "Images":
        """The first ``limit`` images; all of them where None."""
        return Images(self.pixels[:limit], self.labels[:limit], self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, type, pixels and labels."""
        digest = hashlib.sha256(f"{self.pixels.dtype}{self.pixels.shape}".encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        digest.update(self.labels.numpy().astype("<i8").data)
        return digest.hexdigest()


def as_labels(values: np.ndarray) -> Int[Tensor, "n"]:
    """Class numbers of any integer type as int64; InputError for anything else."""
    return check_labels(torch.from_numpy(np.array(values)), len(values))
