"""Which images a step trains on: an order for each epoch that the seed alone decides."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uncannyvalley.data.images import Images
from uncannyvalley.errors import InputError

RESIDENT_BYTES = 2**31
"""Images of at most this size are moved to an accelerator as a whole: a step then waits for no copy."""


def keyed(*parts: object) -> int:
    """A 63-bit seed that belongs to ``parts``; unlike their sum it is that of no other parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Batch(NamedTuple):
    """Images of one step and one process; ``ids`` key the random numbers of each."""

    x: Float[Tensor, "n ..."]
    y: Int[Tensor, "n"]
    ids: list[int]


@dataclass(frozen=True)
class TrainingImages:
    """The images that are trained on, as they were stored; floats batch by batch.

    images  labelled images       rows  which of them are trained on; row numbers are the examples' ids
    device  where batches go      dtype of their pixels
    """

    images: Images
    rows: Int[Tensor, "m"]
    device: torch.device
    dtype: torch.dtype

    def order(self, seed: int, epoch: int) -> Int[Tensor, "m"]:
        """The rows in the order of an epoch."""
        generator = torch.Generator().manual_seed(keyed(seed, "order", epoch))
        return self.rows[torch.randperm(len(self.rows), generator=generator)]

    def batch(self, rows: Int[Tensor, "n"]) -> Batch:
        """The images of some rows."""
        if self._resident is not None:
            pixels, labels = self._resident
            place = rows.to(self.device)
            x, y = pixels[place], labels[place]
        else:
            taken = torch.from_numpy(np.take(self.images.pixels, rows.numpy(), axis=0))
            x, y = taken.to(self.device), self.images.labels[rows].to(self.device)
        floats = x.to(self.dtype)
        return Batch(floats.div_(255) if x.dtype == torch.uint8 else floats, y, rows.tolist())

    @cached_property
    def _resident(self) -> tuple[Tensor, Tensor] | None:
        """All pixels and labels on the accelerator, where they are few enough."""
        pixels = self.images.pixels
        if self.device.type == "cpu" or pixels.nbytes > RESIDENT_BYTES:
            return None
        copied = torch.from_numpy(np.require(pixels, requirements=("C", "W")))
        return copied.to(self.device), self.images.labels.to(self.device)


def shares(
    order: Int[Tensor, "m"], batch_size: int, rank: int, world: int, first: int = 0
) -> Iterator[Tensor]:
    """The rows of this process, batch by batch from batch ``first``: of each batch every ``world``-th, from its rank.

    All processes together take each batch whole; what does not fill a batch is left out of the epoch.
    """
    for number in range(first, len(order) // batch_size):
        yield order[number * batch_size : (number + 1) * batch_size][rank::world]


def held_out_count(count: int, share: float) -> int:
    """How many of ``count`` images are held out."""
    return round(share * count)


def held_out(count: int, share: float, seed: int) -> tuple[Int[Tensor, "m"], Int[Tensor, "v"]]:
    """Rows to train on and rows to validate on, in their own order; which, the seed decides.

    Raises InputError where either would be empty although images are to be held out.
    """
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(keyed(seed, "validation")))
    size = held_out_count(count, share)
    if share > 0 and not 0 < size < count:
        raise InputError(
            f"a validation_share of {share:g} of {count} images leaves nothing to "
            f"{'validate' if size == 0 else 'train'} on; choose another share, or give validation images"
        )
    return chosen[size:].sort().values, chosen[:size].sort().values
